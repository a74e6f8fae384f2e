"""A domain's return path: its records, when mail leaves with it, and the bounces that come back by it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.integration.operator.conftest import data
from tests.integration.operator.mail import Application, Recipients, bounce, leads_to, metric

from malote_dev.mailworld.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import LoopThread
    from tests.integration.operator.conftest import Eventually, Start, Tenancy

    from malote_dev.mailworld.received import Message

pytestmark = pytest.mark.cluster

OWN = ("SPF", "DKIM", "DMARC")


@pytest.fixture
def recipients(cluster_loop: LoopThread, acme: Tenancy) -> Iterator[Recipients]:
    one = Recipients(cluster_loop, acme)
    yield one
    one.close()


@pytest.fixture
def app(start: Start, acme: Tenancy, recipients: Recipients, tmp_path: Path, eventually: Eventually) -> Application:
    """A tenant that can send, with a return path whose records are not published yet."""
    start.settings["bounces"] = {"enabled": True}
    start.settings["egress"] = {"smtpPort": recipients.host.port}
    start()
    acme.apply(
        acme.plan(),
        acme.tenant(senderVerification={"mode": "Off"}),
        acme.sending_domain(returnPath=f"bounces.{acme.domain}"),
    )
    eventually(lambda: len(acme.records()) == 5)
    acme.publish(*OWN)
    eventually(acme.ready)
    return Application(acme, tmp_path)


def reason(acme: Tenancy) -> str:
    found: str = acme.condition("ReturnPathVerified", "sendingdomain").get("reason", "")
    return found


def next_message(app: Application, recipients: Recipients, to: str = "bob") -> Message:
    before = len(recipients.host.messages)
    sent = app.send(f"{to}@{recipients.domain}")
    assert sent.accepted, sent
    return recipients.received(before + 1)[-1]


def test_its_records_are_shown_and_mail_leaves_with_it_for_as_long_as_they_are_right(
    app: Application, start: Start, acme: Tenancy, recipients: Recipients, eventually: Eventually
) -> None:
    host = f"bounces.{acme.domain}"
    assert [(one["purpose"], one["type"], one["name"], one["value"], one["state"]) for one in acme.records()[3:]] == [
        ("ReturnPathMX", "MX", host, f"10 {acme.status()['endpoint']['host']}", "Missing"),
        ("ReturnPathSPF", "TXT", host, "v=spf1 include:spf.example.net ~all", "Missing"),
    ]
    assert reason(acme) == "RecordsPending"
    assert acme.condition("Verified", "sendingdomain")["status"] == "True"
    assert next_message(app, recipients).mail_from == app.sender

    acme.publish("ReturnPathMX")
    eventually(lambda: acme.records()[3]["state"] == "Found")
    assert reason(acme) == "RecordsPending"
    acme.publish()
    eventually(lambda: reason(acme) == "RecordsFound")
    eventually(lambda: next_message(app, recipients).mail_from.endswith(f"@{host}"))
    acme.dns.add_zone("spf.example.net")
    acme.dns.set("spf.example.net", "TXT", "v=spf1 ip4:127.0.0.0/8 -all")
    message = recipients.host.messages[-1]
    verdict = recipients.loop.run(verify(message.content, message.peer, message.helo, message.mail_from, acme.dns))
    assert verdict.all_pass, str(verdict)

    acme.dns.delete(host, "MX")
    eventually(lambda: reason(acme) == "GracePeriod")
    assert next_message(app, recipients).mail_from.endswith(f"@{host}")
    assert start.replicas[-1].terminate() == 0
    start.settings["bounces"]["gracePeriod"] = 1.0
    start()
    eventually(lambda: reason(acme) == "GraceExpired")
    eventually(lambda: next_message(app, recipients).mail_from == app.sender)
    assert acme.ready()
    events = ("get", "events", "-n", acme.namespace, "--field-selector", f"involvedObject.name={acme.name}")
    eventually(lambda: "ReturnPathVerified" in (said := acme.kubectl(*events)) and said.count("ReturnPathLost") == 2)


def test_a_bounce_from_outside_comes_in_by_the_services_port_and_suppresses_its_recipient(
    app: Application, acme: Tenancy, recipients: Recipients, eventually: Eventually
) -> None:
    acme.publish()
    eventually(lambda: next_message(app, recipients).mail_from != app.sender)
    gone, there = f"eve@{recipients.domain}", f"bob@{recipients.domain}"
    about = next_message(app, recipients, "eve").mail_from
    assert re.fullmatch(r"b-[a-z2-7]{29}-[a-z2-7]{16}", about.partition("@")[0])

    (mx,) = acme.dns.get(about.partition("@")[2], "MX")
    assert mx.split()[1].rstrip(".") == data(acme.child("secret", f"{acme.name}-smtp-app"))["host"]
    policy = acme.child("networkpolicy", f"{acme.name}-relay")["spec"]["ingress"]
    place = leads_to(acme, 25)
    assert any("from" not in rule and place[1] in [port["port"] for port in rule["ports"]] for rule in policy)
    assert bounce(place, "b-" + "a" * 29 + "-" + "b" * 16 + "@" + about.partition("@")[2], gone)[0] == 550
    assert bounce(place, about, gone) == (250, "")
    assert metric(acme, 'malote_async_bounces_total{bounce_class="bad-mailbox"}') == 1  # counted before the 250

    refused = app.send(gone).reply
    assert (refused.code, refused.text[:5]) == (550, "5.7.1")
    assert "550 5.1.1 no such user" in refused.text
    assert app.send(there).accepted
