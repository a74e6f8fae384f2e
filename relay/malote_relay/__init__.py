"""The relay: accepts a tenant's mail, holds, signs and delivers it. Knows nothing of Kubernetes."""
