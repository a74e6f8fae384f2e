"""The glue to kopf: watch events go into the caches and wake the keys they concern. No decisions here."""
