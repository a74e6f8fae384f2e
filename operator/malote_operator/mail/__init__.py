"""Mail to tenants: the welcome mail, in English and Brazilian Portuguese, sent through a host of the platform's."""
