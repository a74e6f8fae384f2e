"""Call-outs with a server that a script plays: what its answers are about."""

from __future__ import annotations

import ipaddress

import pytest

from malote_dev.mailworld.scripted import Scripted, scripted
from malote_relay.config import Delivery, Plan, RelayConfig
from malote_relay.resolver import IPAddress, Mx
from malote_relay.senders import CalloutProbe, Finding
from malote_relay.submission.address import Mailbox


class Names:
    async def mx(self, domain: str) -> tuple[Mx, ...]:
        return (Mx(10, "mx.example"),)

    async def addresses(self, host: str) -> tuple[IPAddress, ...]:
        return (ipaddress.ip_address("127.0.0.1"),)


async def asked(port: int, local: str = "ana") -> Finding:
    config = RelayConfig(
        tenant="acme",
        hostname="relay.example",
        plan=Plan(name="p", messages_per_hour=1),
        delivery=Delivery(helo_name="out.relay.example", smtp_port=port, allow_networks=("127.0.0.0/8",)),
    )
    return await CalloutProbe(Names(), config)(Mailbox(local, "acme.example"))


@pytest.mark.parametrize(
    ("at_mail", "at_rcpt", "of_domain"),
    [
        ("550 5.7.1 null sender refused", "", True),
        ("250 ok", "554 5.7.1 Service unavailable; client host [192.0.2.1] blocked using zen.spamhaus.org", True),
        ("250 ok", "451 4.7.1 too many connections from your address", True),
        ("250 ok", "451 4.7.1 Greylisted, please try again in 300 seconds", False),
        ("250 ok", "550 5.1.1 no such user", False),
        ("250 ok", "250 ok", False),
    ],
)
async def test_what_is_about_the_relay_holds_for_the_domain_and_what_is_about_the_address_does_not(
    at_mail: str, at_rcpt: str, of_domain: bool
) -> None:
    async def script(it: Scripted) -> None:
        await it.greet()
        await it.hear()
        it.say(at_mail)
        await it.hear()
        if at_rcpt:
            it.say(at_rcpt)
            await it.hear()

    async with scripted(script) as (port, _):
        found = await asked(port)
    assert found.of_domain is of_domain


async def test_a_host_that_does_not_greet_answers_for_no_address_of_the_domain() -> None:
    async def script(it: Scripted) -> None:
        it.say("554 5.7.1 not you")

    async with scripted(script) as (port, _):
        found = await asked(port)
    assert found.of_domain


async def test_a_host_that_cannot_be_told_one_address_may_be_asked_for_others() -> None:
    async def script(it: Scripted) -> None:
        await it.greet()
        await it.hear()

    async with scripted(script) as (port, _):
        found = await asked(port, "josé")
    assert "SMTPUTF8" in found.words
    assert not found.of_domain
