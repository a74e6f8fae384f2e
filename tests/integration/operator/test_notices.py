"""What a relay says itself: notices, signed by a key of its own, and whom it has paused; both seen in its Tenant."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from tests.integration.operator.conftest import data
from tests.integration.operator.mail import Application, Recipients

from malote_dev.mailworld.behaviour import Action, Behaviour
from malote_dev.mailworld.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Kubectl, LoopThread
    from tests.integration.operator.conftest import Eventually, Start, Tenancy

pytestmark = pytest.mark.cluster


@pytest.fixture
def recipients(cluster_loop: LoopThread, acme: Tenancy) -> Iterator[Recipients]:
    one = Recipients(cluster_loop, acme)
    one.host.recipients[f"gone@{one.domain}"] = Behaviour(action=Action.REFUSE)
    yield one
    one.close()


@pytest.fixture
def app(start: Start, acme: Tenancy, recipients: Recipients, tmp_path: Path, eventually: Eventually) -> Application:
    """A tenant that can send, is paused after one bounce, and has its own mail at the recipients' host."""
    acme.dns.add_zone(f"{acme.name}.out.example.net")
    start.settings["egress"] = {"smtpPort": recipients.host.port}
    start.settings["relay"] = {"config": {"accountPause": {"minRecipients": 1}}}
    start()
    acme.apply(acme.plan(), acme.tenant(senderVerification={"mode": "Off"}), acme.sending_domain())
    eventually(acme.records)
    acme.publish()
    acme.dns.set(acme.domain, "MX", f"10 {recipients.host.hostname}")
    eventually(acme.ready)
    return Application(acme, tmp_path)


def test_a_notice_passes_dmarc_by_the_records_that_the_tenant_shows(
    app: Application, acme: Tenancy, recipients: Recipients, eventually: Eventually
) -> None:
    name = f"{acme.name}.out.example.net"
    eventually(lambda: acme.condition("EgressRecordsPublished").get("reason") == "Missing")
    shown = acme.status()["egress"]
    assert shown["heloName"] == name
    address, spf, dkim = shown["records"]
    assert (address["name"], address["state"]) == (name, "Missing")
    assert (spf["name"], spf["value"]) == (name, "v=spf1 a -all")
    assert dkim["name"].endswith(f"._domainkey.{name}")
    for record in (spf, dkim):
        acme.dns.set(record["name"], record["type"], record["value"])
    acme.dns.set(f"_dmarc.{name}", "TXT", "v=DMARC1; p=reject; adkim=s; aspf=s")
    assert app.send(f"gone@{recipients.domain}").accepted
    (report,) = recipients.received(1)
    assert (report.mail_from, report.recipients, report.helo) == ("", (app.sender,), name)
    acme.dns.set(name, "A", report.peer)
    acme.dns.set(ipaddress.ip_address(report.peer).reverse_pointer, "PTR", f"{name}.")
    verdict = recipients.loop.run(verify(report.content, report.peer, report.helo, report.mail_from, acme.dns))
    assert verdict.all_pass, str(verdict)
    eventually(lambda: acme.condition("EgressRecordsPublished").get("status") == "True")
    states = {one["purpose"]: one["state"] for one in acme.status()["egress"]["records"]}
    assert states == dict.fromkeys(("Address", "PTR", "SPF", "DKIM"), "Found")


def test_the_key_is_made_once_and_comes_back_when_its_secret_is_deleted(
    app: Application, acme: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    name, relays = f"{acme.name}-notices-dkim", acme.platform.relays
    made = acme.child("secret", name)
    assert made["immutable"] is True
    key = data(made)
    assert (
        data(acme.child("secret", f"{acme.name}-relay-keys"))[f"{key['selector']}.notices.pem"] == key["private.pem"]
    )
    kubectl("delete", "secret", name, "-n", relays)
    eventually(lambda: kubectl("get", "secret", name, "-n", relays, "--ignore-not-found"))
    again = acme.child("secret", name)
    assert again["metadata"]["uid"] != made["metadata"]["uid"]
    assert data(again) == key


def test_a_paused_account_is_seen_in_its_tenant_with_the_reason(
    app: Application, acme: Tenancy, recipients: Recipients, eventually: Eventually, kubectl: Kubectl
) -> None:
    assert acme.condition("AccountsOpen")["status"] == "True"
    assert app.send(f"gone@{recipients.domain}").accepted
    paused = eventually(lambda: acme.status()["accounts"][0].get("paused"))
    assert paused["reason"] == "1 of 1 recipients within 24 hours bounced: 100 %, and 5 % is the limit"
    assert paused["since"].endswith("Z")
    assert "until" not in paused
    assert acme.condition("AccountsOpen")["reason"] == "Paused"
    assert acme.reason() == "AccountsPaused", "it was the only one"
    assert paused["reason"] in acme.condition("Ready")["message"]
    refused = app.send(f"bob@{recipients.domain}").reply
    assert (refused.code, paused["reason"] in refused.text) == (550, True)
    events = ("get", "events", "-n", "default", "--field-selector", f"involvedObject.name={acme.name}")
    eventually(lambda: "AccountPaused" in kubectl(*events))
