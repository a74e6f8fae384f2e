"""The operator's metrics. Names and labels are a contract with the chart's dashboards and alert rules.

Cardinality is bounded: no label carries a tenant, a domain or an address.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

RECONCILE_SECONDS = Histogram(
    "malote_operator_reconcile_seconds",
    "Time one reconciliation took, by kind of object",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
RECONCILE_ERRORS = Counter(
    "malote_operator_reconcile_errors_total", "Reconciliations that failed and are tried again, by kind", ["kind"]
)
TENANTS = Gauge(
    "malote_tenants", "Tenants by condition, its status and its reason", ["condition", "status", "reason"]
)
SENDING_DOMAINS = Gauge("malote_sendingdomains", "Sending domains by the reason of Ready", ["state"])
QUEUE_DEPTH = Gauge("malote_operator_queue_depth", "Objects that wait to be reconciled now")
LEADER = Gauge("malote_operator_leader", "1 on the replica that reconciles, 0 on a standby")
DNS_CHECKS = Counter(
    "malote_operator_dns_checks_total", "Checks of domains' records, by what was learned", ["result"]
)
API_REQUESTS = Counter(
    "malote_operator_api_requests_total", "Requests to the API server by method and status code", ["method", "code"]
)
API_WRITES = Counter("malote_operator_writes_total", "Objects written or deleted, by kind and verb", ["kind", "verb"])
EVENTS_WRITTEN = Counter("malote_operator_events_total", "Kubernetes Events written, by reason", ["reason"])
MAILS = Counter("malote_operator_mails_total", "Mails to tenants, by kind and result", ["kind", "result"])


def count_tenants(conditions: Iterable[tuple[str, str, str]]) -> None:
    """Set `malote_tenants` from all tenants' (condition, status, reason); what has none any more is not shown."""
    _set_all(TENANTS, Tally(conditions))


def count_sending_domains(states: Iterable[str]) -> None:
    """Set `malote_sendingdomains` from the reason of Ready of every SendingDomain."""
    _set_all(SENDING_DOMAINS, Tally((state,) for state in states))


def _set_all(gauge: Gauge, tally: Tally[tuple[str, ...]]) -> None:
    gauge.clear()
    for labels, count in tally.items():
        gauge.labels(*labels).set(count)
