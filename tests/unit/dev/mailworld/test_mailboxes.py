"""A domain's own mail host as a call-out sees it."""

from collections.abc import AsyncIterator

import aiosmtplib
import pytest
from aiosmtplib import SMTP

from malote_dev.mailworld.mailboxes import MailboxProvider, Mode


@pytest.fixture
async def provider() -> AsyncIterator[MailboxProvider]:
    async with MailboxProvider(["ana@acme.example"], address="127.0.0.32") as host:
        yield host


async def call_out(provider: MailboxProvider, recipient: str, sender: str = "") -> tuple[int, str]:
    smtp = SMTP(
        hostname=provider.address, port=provider.port, local_hostname="probe.example", start_tls=False, timeout=30
    )
    async with smtp:
        await smtp.ehlo()
        await smtp.mail(sender)
        try:
            reply = await smtp.rcpt(recipient)
        except aiosmtplib.SMTPRecipientRefused as error:
            return error.code, error.message
        return reply.code, reply.message


async def test_a_mailbox_that_exists_is_known_whatever_its_case(provider: MailboxProvider) -> None:
    assert (await call_out(provider, "Ana@ACME.example"))[0] == 250


async def test_a_mailbox_that_does_not_exist_is_refused_as_such(provider: MailboxProvider) -> None:
    code, words = await call_out(provider, "nobody@acme.example")
    assert code == 550
    assert words.startswith("5.1.1 ")
    provider.mailboxes.add("nobody@acme.example")
    assert (await call_out(provider, "nobody@acme.example"))[0] == 250


async def test_each_probe_is_recorded_and_ordinary_mail_is_not_one(provider: MailboxProvider) -> None:
    await call_out(provider, "ana@acme.example")
    await call_out(provider, "nobody@acme.example")
    await call_out(provider, "ana@acme.example", sender="bob@dest.example")
    assert [(probe.recipient, probe.reply[:9], probe.helo) for probe in provider.probes] == [
        ("ana@acme.example", "250 2.1.5", "probe.example"),
        ("nobody@acme.example", "550 5.1.1", "probe.example"),
    ]


@pytest.mark.parametrize(
    ("mode", "recipient", "code", "words"),
    [
        (Mode.ACCEPT_ALL, "nobody@acme.example", 250, "2.1.5"),
        (Mode.DEFER_ALL, "ana@acme.example", 451, "4.3.0"),
        (Mode.BLOCK_PROBES, "ana@acme.example", 550, "5.7.1"),
    ],
)
async def test_each_mode_answers_in_its_way_and_can_be_left(
    provider: MailboxProvider, mode: Mode, recipient: str, code: int, words: str
) -> None:
    await provider.set_mode(mode)
    assert ((await call_out(provider, recipient))[0], (await call_out(provider, recipient))[1][:5]) == (code, words)
    await provider.set_mode(Mode.NORMAL)
    assert (await call_out(provider, "ana@acme.example"))[0] == 250
    assert (await call_out(provider, "nobody@acme.example"))[0] == 550


async def test_a_host_that_blocks_probes_still_takes_mail(provider: MailboxProvider) -> None:
    await provider.set_mode(Mode.BLOCK_PROBES)
    assert (await call_out(provider, "ana@acme.example", sender="bob@dest.example"))[0] == 250


async def test_an_unreachable_host_is_reached_again_later(provider: MailboxProvider) -> None:
    await provider.set_mode(Mode.UNREACHABLE)
    with pytest.raises(aiosmtplib.SMTPConnectError):
        await call_out(provider, "ana@acme.example")
    await provider.set_mode(Mode.NORMAL)
    assert (await call_out(provider, "ana@acme.example"))[0] == 250
