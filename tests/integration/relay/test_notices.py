"""The relay's own notices, from its configuration directory to the sender's mailbox."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
from collections.abc import Callable
from typing import Any

from malote_dev.mailworld.behaviour import Action, Behaviour
from malote_dev.mailworld.verify import verify
from malote_operator.policy import egress
from malote_operator.policy.model import DkimPublicKey, EgressWorld
from malote_operator.reconcile import material
from malote_operator.render import secrets
from malote_relay.config import KEYS_DIRECTORY, DkimKey, Language, Notices

NAME = "out.acme.smtp.example"
GONE = "gone@dest.example"


async def refused(running: Any, site: Any, compose: Any) -> Any:
    """Send to somebody who is gone: what the sender's mailbox receives."""
    site.world.mx.recipients[GONE] = Behaviour(action=Action.REFUSE)
    site.world.provider.clear()
    await running.send(compose(), to=(GONE,))
    (report,) = await site.world.provider.wait_for(1)
    return report


async def test_they_are_signed_by_the_key_of_the_relays_own_name_and_pass_dmarc(
    site: Any, start: Callable[[], Any], compose: Any
) -> None:
    world = site.world
    (site.directory / KEYS_DIRECTORY / "notices.pem").write_bytes(world.key.pem)
    site.change(notices=Notices(keys=(DkimKey(selector="n1", file="notices.pem"),), language=Language.PORTUGUESE))
    world.dns.set(f"n1._domainkey.{NAME}", "TXT", world.key.record)
    world.dns.set(NAME, "TXT", "v=spf1 ip4:127.0.0.0/8 -all")
    world.dns.set(f"_dmarc.{NAME}", "TXT", "v=DMARC1; p=reject; adkim=s; aspf=s")
    running = await start()
    report = await refused(running, site, compose)
    verdict = await verify(report.content, report.peer, report.helo, report.mail_from, world.dns)
    assert verdict.all_pass, verdict
    assert verdict.header_from == NAME
    document = email.message_from_bytes(report.content, policy=email.policy.SMTP)
    assert str(document["Subject"]) == "Mensagem não entregue"
    assert running.counted("malote_notices_total", kind="failed", result="sent") == 1


async def test_with_the_key_and_the_records_that_the_operator_makes_a_notice_passes_everything(
    site: Any, start: Callable[[], Any], compose: Any
) -> None:
    """From the pair that it makes to the records in the Tenant's status, which are published as they are shown."""
    world = site.world
    pair = material.new_dkim_pair()
    key = DkimPublicKey(pair.selector, pair.public_key, dt.datetime.now(dt.UTC))
    file = key.file_name(secrets.NOTICES)
    (site.directory / KEYS_DIRECTORY / file).write_bytes(pair.private_pem)
    site.change(notices=Notices(keys=(DkimKey(selector=key.selector, file=file),)))
    status = egress.status(EgressWorld(NAME, key), None)
    assert status is not None
    for record in status.records:
        if record.type == "TXT":  # the address is that which the report turns out to come from
            world.dns.set(record.name, record.type, record.value)
    world.dns.set(f"_dmarc.{NAME}", "TXT", "v=DMARC1; p=reject; adkim=s; aspf=s")
    report = await refused(await start(), site, compose)
    world.dns.set(NAME, "A", report.peer)
    verdict = await verify(report.content, report.peer, report.helo, report.mail_from, world.dns)
    assert verdict.all_pass, verdict
    assert (verdict.dkim_domain, verdict.dkim_selector) == (NAME, key.selector)
    elsewhere = await verify(report.content, "192.0.2.1", report.helo, report.mail_from, world.dns)
    assert (elsewhere.dkim, elsewhere.spf) == ("pass", "fail")


async def test_without_a_key_they_go_unsigned(site: Any, start: Callable[[], Any], compose: Any) -> None:
    report = await refused(await start(), site, compose)
    header, _, returned = report.content.partition(b"\r\n\r\n")
    assert b"DKIM-Signature" not in header
    assert b"DKIM-Signature" in returned  # that of the message they are about


async def test_a_key_that_is_missing_leaves_the_configuration_in_force(
    site: Any, start: Callable[[], Any], compose: Any
) -> None:
    running = await start()
    site.change(notices=Notices(keys=(DkimKey(selector="n1", file="missing.pem"),)))
    await running.relay._watcher.look()
    assert "missing.pem" in running.relay._watcher.error
    assert (await refused(running, site, compose)).mail_from == ""
