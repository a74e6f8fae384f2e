"""How a tenant's mail leaves, as its Plan and Tenant say it, seen from where it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.operator.mail import Application, Recipients, loopback

from malote_dev.mailworld.mx import SinkMx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Kubectl, LoopThread
    from tests.integration.operator.conftest import Eventually, Start, Tenancy

pytestmark = pytest.mark.cluster

LOGIN = ("malote", "the smart host's word")
UNASKED: dict[str, Any] = {"senderVerification": {"mode": "Off"}}


@pytest.fixture
def recipients(cluster_loop: LoopThread, acme: Tenancy, start: Start) -> Iterator[Recipients]:
    one = Recipients(cluster_loop, acme)
    start.settings["egress"] = {"smtpPort": one.host.port}
    yield one
    one.close()


@pytest.fixture
def smart_host(cluster_loop: LoopThread, acme: Tenancy) -> Iterator[SinkMx]:
    """A smart host that wants a login."""
    host = SinkMx(loopback(), hostname=f"smart.{acme.name}.example", login=LOGIN)
    cluster_loop.run(host.start())
    acme.dns.add_zone(f"{acme.name}.example")
    acme.dns.set(host.hostname, "A", host.address)
    yield host
    cluster_loop.run(host.stop())


def test_the_receiving_host_sees_the_address_and_the_name_that_plan_and_tenant_say(
    start: Start, acme: Tenancy, recipients: Recipients, tmp_path: Path, eventually: Eventually
) -> None:
    start()
    first, second, plan = loopback(), loopback(), {"heloTemplate": "{tenant}.bulk.example.net"}
    acme.apply(acme.plan(egress=plan), acme.tenant(egress={"sourceAddress": first}, **UNASKED), acme.sending_domain())
    eventually(acme.records)
    acme.publish()
    eventually(acme.ready)
    app = Application(acme, tmp_path)
    assert app.send(f"bob@{recipients.domain}").accepted
    (message,) = recipients.received(1)
    assert (message.peer, message.helo) == (first, f"{acme.name}.bulk.example.net")

    pod = acme.child("pod", f"{acme.name}-relay-0")["metadata"]["uid"]
    acme.apply(acme.tenant(egress={"sourceAddress": second, "heloTemplate": "out.example.net"}, **UNASKED))

    def moved() -> bool:
        before = len(recipients.host.messages)
        assert app.send(f"bob@{recipients.domain}").accepted
        seen = recipients.received(before + 1)[-1]
        return (seen.peer, seen.helo) == (second, "out.example.net")

    eventually(moved)
    assert acme.child("pod", f"{acme.name}-relay-0")["metadata"]["uid"] == pod, "nothing was restarted"


def test_a_suspension_waits_for_no_password_and_with_it_the_smart_host_gets_all_mail(
    start: Start,
    acme: Tenancy,
    recipients: Recipients,
    smart_host: SinkMx,
    tmp_path: Path,
    eventually: Eventually,
    kubectl: Kubectl,
) -> None:
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(smart_host.authority.pem)
    passwords = f"{acme.name}-passwords"
    start.settings["relay"] = {
        "credentialsSecret": passwords,  # which is not there
        "config": {"delivery": {"tls": {"authorities": str(authorities)}}},
    }
    start()
    host = {"host": smart_host.hostname, "port": smart_host.port, "username": LOGIN[0], "passwordFile": "smart"}
    egress = {"egress": {"smartHost": host}, **UNASKED}
    acme.apply(acme.plan(), acme.tenant(**egress), acme.sending_domain())
    eventually(acme.records)
    acme.publish()
    eventually(lambda: "credentials/smart cannot be read" in acme.condition("Ready")["message"])
    assert acme.reason() == "ConfigError"
    app = Application(acme, tmp_path)

    acme.apply(acme.tenant(suspend={"reason": "Abuse"}, **egress))
    eventually(lambda: acme.condition("SubmissionOpen")["reason"] == "Suspended")
    refused = app.send(f"bob@{recipients.domain}").reply
    assert (refused.code, refused.text[:5]) == (550, "5.7.1")
    assert "suspended" in refused.text

    policy = acme.child("networkpolicy", f"{acme.name}-relay")["spec"]["egress"]
    assert any(smart_host.port in [port["port"] for port in rule["ports"]] for rule in policy)
    relays = acme.platform.relays
    kubectl("create", "secret", "generic", passwords, "-n", relays, f"--from-literal=smart={LOGIN[1]}")
    acme.apply(acme.tenant(**egress))
    eventually(acme.ready)
    assert app.send(f"bob@{recipients.domain}").accepted
    (message,) = recipients.loop.run(smart_host.wait_for(1, 60.0))
    assert message.recipients == (f"bob@{recipients.domain}",)
    assert "AUTH" in [step.verb for step in smart_host.commands]
    assert recipients.host.connections == 0
