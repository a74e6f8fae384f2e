"""Resources and worlds for the tests of decisions: everything in order, to be changed one thing at a time."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

import msgspec

from malote_operator.api.domainclaim import DomainClaim
from malote_operator.api.plan import Plan
from malote_operator.api.sendingdomain import SendingDomain
from malote_operator.api.tenant import Tenant
from malote_operator.dns import expected
from malote_operator.dns.model import Answer, Observation, Outcome
from malote_operator.policy.model import Decided, DkimPublicKey
from malote_operator.policy.ranking import Ranking, rank
from malote_operator.settings import Dns, Settings

NOW = dt.datetime(2026, 11, 23, 12, 0, 0, tzinfo=dt.UTC)
SETTINGS = Settings()
KEY = DkimPublicKey("m0123456789ab", base64.b64encode(bytes(range(256)) + bytes(38)).decode(), NOW)
SPF = "v=spf1 mx include:spf.example.net -all"
DMARC = "v=DMARC1; p=none"


def with_dns(**changes: Any) -> Settings:
    return Settings(dns=msgspec.structs.replace(Dns(), **changes))


def plan(name: str = "smtp-1", **spec: Any) -> Plan:
    return msgspec.convert({"metadata": {"name": name}, "spec": {"messagesPerHour": 3000, **spec}}, Plan)


def tenant(name: str = "acme", **spec: Any) -> Tenant:
    whole = {
        "planRef": {"name": "smtp-1"},
        "namespaces": ["acme"],
        "approval": {"approved": True},
        "contact": {"email": "ana@acme.example"},
        "accounts": [{"name": "app"}],
        **spec,
    }
    metadata = {"name": name, "uid": f"uid-of-{name}", "generation": 3}
    return msgspec.convert({"metadata": metadata, "spec": whole}, Tenant)


def domain(
    name: str = "acme.example", *, uid: str = "uid-1", namespace: str = "acme", age: float = 60.0, **spec: Any
) -> SendingDomain:
    metadata = {
        "name": name.replace(".", "-"),
        "namespace": namespace,
        "uid": uid,
        "generation": 1,
        "creationTimestamp": NOW - dt.timedelta(seconds=age),
    }
    body = {"metadata": metadata, "spec": {"tenantRef": {"name": "acme"}, "domain": name, **spec}}
    return msgspec.convert(body, SendingDomain)


def ranked(*siblings: SendingDomain, holder: Tenant | None = None) -> Ranking:
    """These SendingDomains as they come first for their tenant."""
    return rank(holder or tenant(), siblings)


def claim(uid: str = "uid-1", holder: str = "acme", name: str = "acme.example") -> DomainClaim:
    spec = {"domain": name, "tenant": holder, "namespace": "acme", "name": name, "uid": uid}
    return msgspec.convert({"metadata": {"name": name}, "spec": spec}, DomainClaim)


def answer(name: str, *texts: str) -> Answer:
    return Answer(name, Outcome.ANSWERED if texts else Outcome.ABSENT, texts)


def failure(name: str) -> Answer:
    return Answer(name, Outcome.FAILED, error="SERVFAIL")


def seen(
    *,
    spf: Answer | None = None,
    dkim: Answer | None = None,
    dmarc: Answer | None = None,
    return_path_mx: Answer | None = None,
    return_path_spf: Answer | None = None,
    host: Answer | None = None,
    reverse: tuple[Answer, ...] = (),
    at: dt.datetime = NOW,
    name: str = "acme.example",
) -> Observation:
    """What DNS showed: all three records right unless told otherwise, and no return path or host looked for."""
    key_name = expected.dkim_name(name, KEY.selector)
    return Observation(
        at=at,
        spf=spf or answer(name, SPF),
        dkim=dkim or answer(key_name, expected.dkim_value(KEY.public_key)),
        dmarc=dmarc or answer(f"_dmarc.{name}", DMARC),
        return_path_mx=return_path_mx,
        return_path_spf=return_path_spf,
        host=host,
        reverse=reverse,
    )


NO_SPF = answer("acme.example")
NO_DKIM = answer(expected.dkim_name("acme.example", KEY.selector))
NO_DMARC = answer("_dmarc.acme.example")
FAILED: dict[str, Any] = {
    "spf": failure("acme.example"),
    "dkim": failure(expected.dkim_name("acme.example", KEY.selector)),
    "dmarc": failure("_dmarc.acme.example"),
}


def condition(decided: tuple[Decided, ...], kind: str) -> Decided:
    return next(one for one in decided if one.type == kind)


def table(decided: tuple[Decided, ...]) -> dict[str, str]:
    """Conditions as `Type: Status/Reason`."""
    return {one.type: f"{one.status.value}/{one.reason}" for one in decided}
