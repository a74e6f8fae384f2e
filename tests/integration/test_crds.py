"""The kinds on a real API server: what is refused and with which words, what is filled in, what kubectl shows."""

from __future__ import annotations

import copy
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from tests.integration.conftest import Kubectl

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
KINDS = ("plan", "tenant", "sendingdomain", "domainclaim")

PLAN = {
    "apiVersion": "malote.dev/v1alpha1",
    "kind": "Plan",
    "metadata": {"name": "trial"},
    "spec": {"messagesPerHour": 100},
}
TENANT = {
    "apiVersion": "malote.dev/v1alpha1",
    "kind": "Tenant",
    "metadata": {"name": "initech"},
    "spec": {"planRef": {"name": "trial"}, "contact": {"email": "bill@initech.example"}},
}
DOMAIN = {
    "apiVersion": "malote.dev/v1alpha1",
    "kind": "SendingDomain",
    "metadata": {"name": "initech", "namespace": "default"},
    "spec": {"tenantRef": {"name": "initech"}, "domain": "initech.example"},
}
CLAIM = {
    "apiVersion": "malote.dev/v1alpha1",
    "kind": "DomainClaim",
    "metadata": {"name": "initech.example"},
    "spec": {"domain": "initech.example", "tenant": "initech", "namespace": "default", "name": "initech", "uid": "1"},
}


def changed(manifest: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The manifest with one field (dotted path) set to another value."""
    made = copy.deepcopy(manifest)
    *parents, last = path.split(".")
    place = made
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    return made


@pytest.fixture(scope="module", autouse=True)
def kinds(kubectl: Kubectl) -> None:
    kubectl.serve(ROOT / "crds")


@pytest.fixture
def applied(kubectl: Kubectl) -> Iterator[Callable[..., dict[str, Any]]]:
    """Apply a manifest, give what the server made of it, and delete it after the test."""
    made: list[dict[str, Any]] = []

    def apply(manifest: dict[str, Any]) -> dict[str, Any]:
        made.append(manifest)
        answer = kubectl("apply", "-f", "-", "-o", "json", stdin=json.dumps(manifest))
        read: dict[str, Any] = json.loads(answer)
        return read

    yield apply
    for manifest in made:
        kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=false", stdin=json.dumps(manifest))


def refusal(kubectl: Kubectl, manifest: dict[str, Any]) -> str:
    """The words with which kubectl refuses a manifest."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))
    return str(caught.value.stderr)


WRONG = [
    # Plan
    (PLAN, "spec.messagesPerHour", 0, "spec.messagesPerHour in body should be greater than or equal to 1"),
    (PLAN, "spec.messagesPerHour", None, "spec.messagesPerHour: Required value"),
    (PLAN, "spec.tolerancePercent", 101, "should be less than or equal to 100"),
    (PLAN, "spec.tolerancePercent", -1, "should be greater than or equal to 0"),
    (PLAN, "spec.overLimitReply", "Never", 'supported values: "Permanent", "Temporary"'),
    (PLAN, "spec.maxDomains", 201, "should be less than or equal to 200"),
    (PLAN, "spec.maxDomains", 0, "should be greater than or equal to 1"),
    (PLAN, "spec.price", {"currency": "BRL"}, 'at least one of monthly and annual, such as monthly: "99.90"'),
    (PLAN, "spec.price", {"monthly": "9.90"}, "spec.price.currency: Required value"),
    (PLAN, "spec.price", {"currency": "reais", "monthly": "9.90"}, "ISO 4217 code in three capital letters"),
    (PLAN, "spec.price", {"currency": "BRL", "monthly": "9,90"}, "decimal string with a point"),
    (PLAN, "spec.price", {"currency": "BRL", "annual": "9.900"}, "decimal string with a point"),
    (PLAN, "spec.price", {"currency": "BRL", "monthly": 9.9}, "must be of type string"),
    (PLAN, "spec.price", {"currency": "BRL", "monthly": "0.00"}, "leave price out altogether for a free plan"),
    (PLAN, "spec.relay", {"storage": {"size": "ten gigs"}}, "write a storage quantity such as 500Mi or 10Gi"),
    (PLAN, "spec.relay", {"storage": {"size": "0"}}, "write a storage quantity such as 500Mi or 10Gi"),
    (PLAN, "spec.relay.resources", {"requests": {"memory": "1Gi"}, "limits": {"memory": "512Mi"}},
     "no request may be larger than the limit"),
    (PLAN, "spec.relay.resources", {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}},
     "no request may be larger than the limit"),
    (PLAN, "spec.relay.resources", {"requests": {"cpu": "1,5"}}, "should match"),
    (PLAN, "spec.relay.resources", {"requests": {"cpu": -1}}, "should be greater than or equal to 0"),
    (PLAN, "spec.relay.resources", {"limits": {"cpus": 1}}, "write cpu, memory or ephemeral-storage"),
    (PLAN, "spec.egress", {"heloTemplate": "Out.example.net."}, "write a host name in lower case"),
    (PLAN, "spec.egress", {"sourceAddress": "192.0.2.256"}, "write an IPv4 or IPv6 address, such as 192.0.2.25"),
    (PLAN, "spec.egress", {"sourceAddress": "2001:db8:25"}, "write an IPv4 or IPv6 address"),
    (TENANT, "spec.egress", {"sourceAddress": "192.0.2.025"}, "write an IPv4 or IPv6 address"),
    (TENANT, "spec.egress", {"sourceAddress": "192.0.2.25."}, "write an IPv4 or IPv6 address"),
    (TENANT, "spec.egress", {"sourceAddress": "2001:db8::2::5"}, "write an IPv4 or IPv6 address"),
    (PLAN, "spec.egress", {"heloTemplate": "{name}.out.example.net"}, "such as {tenant}.out.example.net"),
    (PLAN, "spec.egress", {"sourceAddress": "out.example.net"}, "write an IPv4 or IPv6 address, such as 192.0.2.25"),
    (PLAN, "spec.egress.smartHost", {"port": 587}, "spec.egress.smartHost.host: Required value"),
    (PLAN, "spec.egress.smartHost", {"host": "smtp://smart"}, "write a host name such as smart.example.net"),
    (PLAN, "spec.egress.smartHost", {"host": "smart", "tls": "None"}, 'values: "Opportunistic", "Required"'),
    (PLAN, "spec.egress.smartHost", {"host": "smart", "username": "u"}, "username and passwordFile belong together"),
    (PLAN, "spec.egress.socks5", {"host": "s", "username": "u", "passwordFile": "../x"}, "a key of that Secret"),
    (PLAN, "spec.messagePerHour", 5, 'unknown field "spec.messagePerHour"'),
    # Tenant
    (TENANT, "metadata.name", "a" * 41, "write at most 40 characters"),
    (TENANT, "metadata.name", "4you", "a letter first and no hyphen last"),
    (TENANT, "metadata.name", "acme.example", "write lower-case letters, digits and hyphens"),
    (TENANT, "metadata.name", "acme-relay", "leave out the parts -smtp, -dkim, -relay"),
    (TENANT, "metadata.name", "acme-smtp-x", "leave out the parts -smtp"),
    (TENANT, "spec.planRef", None, "spec.planRef: Required value"),
    (TENANT, "spec.contact", {"name": "Bill"}, "spec.contact.email: Required value"),
    (TENANT, "spec.contact", {"email": "Bill <bill@initech.example>"}, "write a single e-mail address without"),
    (TENANT, "spec.contact", {"email": "bill"}, "such as ana@acme.example"),
    (TENANT, "spec.contact", {"email": "b@i.example", "language": "pt"}, 'supported values: "pt-BR", "en"'),
    (TENANT, "spec.billing", {"dueDay": 29}, "should be less than or equal to 28"),
    (TENANT, "spec.billing", {"dueDay": 0}, "should be greater than or equal to 1"),
    (TENANT, "spec.billing", {"paidUntil": "31.12.2026"}, "spec.billing.paidUntil in body must be of type date"),
    (TENANT, "spec.billing", {"emails": ["x"]}, "write a single e-mail address"),
    (TENANT, "spec.cancelAfter", "2026-13-01", "spec.cancelAfter in body must be of type date"),
    *((TENANT, path, last, "write a date from 1970-01-01 to 9998-12-31")
      for path in ("spec.cancelAfter", "spec.billing.paidUntil")
      for last in ("9999-12-31", "9999-01-01", "1969-12-31", "0000-01-01")),
    (TENANT, "spec.approval", {"acceptedAt": "0000-01-01T00:00:00Z"}, "write a time from 1970 to 9998"),
    (TENANT, "spec.suspend", {}, "spec.suspend.reason: Required value"),
    (TENANT, "spec.suspend", {"reason": "Whim"}, 'supported values: "Abuse", "Payment", "Request"'),
    (TENANT, "spec.accounts", [{"name": "a"}, {"name": "a"}], 'spec.accounts[1]: Duplicate value: {"name":"a"}'),
    (TENANT, "spec.accounts", [{"name": "App One"}], "write lower-case letters, digits and hyphens, such as app"),
    (TENANT, "spec.accounts", [{"name": "a", "class": "Spam"}], 'supported values: "Transactional", "Bulk"'),
    (TENANT, "spec.namespaces", ["a", "a"], 'spec.namespaces[1]: Duplicate value: "a"'),
    (TENANT, "spec.namespaces", ["A"], "write the name of a namespace"),
    (TENANT, "spec.senderVerification", {"mode": "List"}, "mode List needs the addresses that may send"),
    (TENANT, "spec.senderVerification", {"mode": "List", "senders": ["x"]}, "write an e-mail address"),
    (TENANT, "spec.senderVerification", {"mode": False}, "must be of type string"),
    (TENANT, "spec.egress.socks5", {"host": "proxy:1080"}, "write a host name such as smart.example.net"),
    (TENANT, "spec.acounts", [], 'unknown field "spec.acounts"'),
    # SendingDomain
    (DOMAIN, "spec.domain", "Initech.Example", "write the domain in lower case: initech.example"),
    (DOMAIN, "spec.domain", "initech.example.", "leave out the final dot"),
    (DOMAIN, "spec.domain", "café.example", "as A-labels, such as xn--caf-dma.example"),
    (DOMAIN, "spec.domain", "initech", "at least two labels"),
    (DOMAIN, "spec.domain", "https://initech.example/", "without scheme, path, @ or wildcard"),
    (DOMAIN, "spec.domain", "bill@initech.example", "without scheme, path, @ or wildcard"),
    (DOMAIN, "spec.domain", "*.initech.example", "without scheme, path, @ or wildcard"),
    (DOMAIN, "spec.domain", "-x.example", "letters, digits and inner hyphens"),
    (DOMAIN, "spec.domain", f"{'a' * 64}.example", "at most 63 characters"),
    (DOMAIN, "spec.domain", "initech..example", "a domain name of at least two labels"),
    (DOMAIN, "spec.domain", "192.0.2.1", "not an IP address"),
    (DOMAIN, "spec.domain", ".".join(["a" * 60] * 4), "may not be more than 220"),
    (DOMAIN, "spec.tenantRef", None, "spec.tenantRef: Required value"),
    (DOMAIN, "spec.dkim", {"publish": "A"}, 'supported values: "TXT", "CNAME"'),
    (DOMAIN, "spec.dkim", {"rotateEveryDays": 30}, "rotateEveryDays works only with publish: CNAME"),
    (DOMAIN, "spec.dkim", {"publish": "CNAME", "rotateEveryDays": -1}, "should be greater than or equal to 0"),
    (DOMAIN, "spec.returnPath", "bounces.other.example", "under the domain, such as bounces.initech.example"),
    (DOMAIN, "spec.returnPath", "evilinitech.example", "under the domain, such as bounces.initech.example"),
    (DOMAIN, "spec.returnPath", "Bounces.initech.example", "write a host name in lower case"),
    # DomainClaim
    (CLAIM, "metadata.name", "other.example", "metadata.name must be the domain"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("manifest", "path", "value", "words"), WRONG, ids=[f"{path}={value}"[:60] for _, path, value, _ in WRONG]
)
def test_a_wrong_manifest_is_refused_with_words_that_help(
    kubectl: Kubectl, manifest: dict[str, Any], path: str, value: Any, words: str
) -> None:
    assert words in refusal(kubectl, changed(manifest, path, value))


@pytest.mark.parametrize(
    ("value", "unwanted"),
    [("Initech.Example", ["A-labels", "final dot", "two labels"]), ("café.example", ["lower case", "two labels"])],
)
def test_one_mistake_in_a_domain_gives_one_message(kubectl: Kubectl, value: str, unwanted: list[str]) -> None:
    said = refusal(kubectl, changed(DOMAIN, "spec.domain", value))
    assert [words for words in unwanted if words in said] == []


RIGHT = [
    (PLAN, "spec.price", {"currency": "BRL", "monthly": "99.90"}),
    (PLAN, "spec.price", {"currency": "EUR", "annual": "1000"}),
    (PLAN, "spec.relay", {"resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"cpu": 1}}}),
    (PLAN, "spec.relay.resources", {"requests": {"memory": "1Gi", "cpu": 1}, "limits": {"memory": "1024Mi"}}),
    (PLAN, "spec.relay.resources", {"limits": {"example.com/x": 1}}),
    (PLAN, "spec.egress", {"heloTemplate": "{tenant}.bulk.example.net", "sourceAddress": "2001:db8::25"}),
    (PLAN, "spec.egress", {"heloTemplate": "out-{tenant}.example.net", "sourceAddress": "192.0.2.25"}),
    (PLAN, "spec.egress", {"sourceAddress": "2001:db8:1:2:3:4:5:6"}),
    (TENANT, "spec.egress", {"sourceAddress": "fd00::"}),
    (PLAN, "spec.egress.smartHost", {"host": "smart.example.net", "username": "u", "passwordFile": "smart-host"}),
    (PLAN, "spec.egress.smartHost", {"host": "2001:db8::1", "port": 465, "tls": "Implicit"}),
    (PLAN, "spec.egress.socks5", {"host": "192.0.2.10"}),
    *(
        (TENANT, path, last)
        for path in ("spec.cancelAfter", "spec.billing.paidUntil")
        for last in ("1970-01-01", "9998-12-31")
    ),
    (TENANT, "spec.approval", {"approved": True, "acceptedAt": "2026-10-05T14:00:00-03:00"}),
    (TENANT, "metadata.name", "a" * 40),
    (TENANT, "metadata.name", "smtp-services"),
    (TENANT, "spec.senderVerification", {"mode": "Off"}),
    (TENANT, "spec.egress", {"heloTemplate": "out.initech.example", "smartHost": {"host": "smart.example.net"}}),
    (TENANT, "spec.contact", {"email": "ana.souza+x@sub.acme.example", "language": "pt-BR"}),
    (TENANT, "spec.accounts", [{"name": "app"}, {"name": "news-2", "class": "Bulk", "suspended": True}]),
    (TENANT, "spec.billing", {"paidUntil": "2026-12-31", "cycle": "Annual", "emails": ["a@b.example"]}),
    (DOMAIN, "spec.domain", "xn--caf-dma.example"),
    (DOMAIN, "spec.domain", "a.b.c.initech.example"),
    (DOMAIN, "spec.domain", "1and1.example"),
    (DOMAIN, "spec.dkim", {"publish": "CNAME", "rotateEveryDays": 180}),
    (DOMAIN, "spec.dkim", {"rotateEveryDays": 0}),
    (DOMAIN, "spec.returnPath", "bounces.initech.example"),
    (CLAIM, "spec.tenant", "initech"),
]


@pytest.mark.parametrize(
    ("manifest", "path", "value"), RIGHT, ids=[f"{path}={value}"[:60] for _, path, value in RIGHT]
)
def test_a_right_manifest_is_taken(kubectl: Kubectl, manifest: dict[str, Any], path: str, value: Any) -> None:
    kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(changed(manifest, path, value)))


@pytest.mark.parametrize(
    ("manifest", "path", "value", "words"),
    [
        (DOMAIN, "spec.domain", "other.example", "the domain cannot be changed: delete this SendingDomain"),
        (DOMAIN, "spec.tenantRef.name", "other", "tenantRef cannot be changed: delete this SendingDomain"),
        (CLAIM, "spec.tenant", "other", "a claim cannot be changed"),
    ],
)
def test_what_is_immutable_says_how_to_get_there_instead(
    kubectl: Kubectl,
    applied: Callable[..., dict[str, Any]],
    manifest: dict[str, Any],
    path: str,
    value: str,
    words: str,
) -> None:
    applied(manifest)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        kubectl("apply", "-f", "-", stdin=json.dumps(changed(manifest, path, value)))
    assert words in caught.value.stderr


def test_defaults_are_filled_in(applied: Callable[..., dict[str, Any]]) -> None:
    plan = applied(PLAN)["spec"]
    assert (plan["tolerancePercent"], plan["maxMessageBytes"], plan["overLimitReply"]) == (
        20,
        26_214_400,
        "Permanent",
    )
    tenant = applied(TENANT)["spec"]
    assert tenant["approval"] == {"approved": False}
    assert tenant["billing"] == {"cycle": "Monthly", "dueDay": 10}
    assert tenant["senderVerification"] == {"mode": "Callout", "unknown": "Accept"}
    assert tenant["contact"]["language"] == "en"
    assert applied(DOMAIN)["spec"]["dkim"] == {"publish": "TXT"}


def test_the_examples_apply_and_the_tables_answer(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", str(ROOT / "examples"))
    try:
        conditions = [_condition("Ready", "False", "RecordsPending"), _condition("Stalled", "False", "Settled")]
        records = [
            {"purpose": kind, "type": "TXT", "name": "acme.example", "value": "x", "state": state}
            for kind, state in (("SPF", "Found"), ("DKIM", "Missing"), ("DMARC", "Mismatch"))
        ]
        _patch_status(
            kubectl, "sendingdomain/acme-example", {"records": records, "conditions": conditions}, "-n=acme"
        )
        _patch_status(
            kubectl, "tenant/acme", {"endpoint": {"host": "acme.smtp.example.net"}, "conditions": conditions}
        )
        _patch_status(kubectl, "plan/smtp-1", {"tenants": 1, "conditions": conditions})
        shown = _table(kubectl("get", "sendingdomain", "acme-example", "-n", "acme"))
        assert shown.pop("AGE")
        assert shown == {
            "NAME": "acme-example", "DOMAIN": "acme.example", "TENANT": "acme", "SPF": "Found", "DKIM": "Missing",
            "DMARC": "Mismatch", "READY": "False", "REASON": "RecordsPending",
        }  # fmt: skip
        tenant = _table(kubectl("get", "tenant", "acme"))
        assert tenant.pop("AGE")
        assert tenant == {
            "NAME": "acme", "PLAN": "smtp-1", "READY": "False", "REASON": "RecordsPending",
            "HOST": "acme.smtp.example.net",
        }  # fmt: skip
        plan = kubectl("get", "plan", "smtp-1")
        assert "PER HOUR" in plan
        assert "TOLERANCE" in plan
        assert plan.splitlines()[1].split()[:6] == ["smtp-1", "3000", "20", "3", "2", "1"]
        assert "acme-example" in kubectl("get", "malote", "-n", "acme")
    finally:
        kubectl("delete", "-f", str(ROOT / "examples"), "--ignore-not-found", "--wait=false")


@pytest.mark.parametrize("kind", KINDS)
def test_kubectl_explains_every_field(kubectl: Kubectl, kind: str) -> None:
    # A new kind's schema is published a moment after it is established.
    deadline = time.monotonic() + 60
    while True:
        try:
            tree = kubectl("explain", kind, "--recursive")
            break
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
    for path in _leaves(kind):
        assert path.rsplit(".", 1)[-1] in tree
    deepest = max(_leaves(kind), key=lambda path: path.count("."))
    said = kubectl("explain", deepest)
    assert "DESCRIPTION:" in said
    assert "<empty>" not in said


def _leaves(kind: str) -> list[str]:
    """The paths of all fields below spec and status."""
    body = yaml.safe_load((ROOT / "crds" / f"{kind}s.yaml").read_text())
    schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def walk(described: dict[str, Any], path: str) -> Iterator[str]:
        described = described.get("items", described)
        for name, one in described.get("properties", {}).items():
            yield f"{path}.{name}"
            yield from walk(one, f"{path}.{name}")

    return [path for path in walk(schema, kind) if not path.endswith((".apiVersion", ".kind", ".metadata"))]


def _condition(kind: str, status: str, reason: str) -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-11-23T12:00:00Z",
    }


def _patch_status(kubectl: Kubectl, name: str, status: dict[str, Any], *options: str) -> None:
    body = json.dumps({"status": status})
    kubectl("patch", name, "--subresource=status", "--type=merge", "-p", body, *options)


def _table(text: str) -> dict[str, str]:
    head, row = text.splitlines()
    return dict(zip(head.split(), row.split(), strict=True))
