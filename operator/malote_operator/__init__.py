"""The operator: makes the cluster and the tenants' relays be what Plans, Tenants and SendingDomains say."""
