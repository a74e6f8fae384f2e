"""Each behaviour of the mail hosts as a client sees it, over real sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import aiosmtplib
import pytest
from aiosmtplib import SMTP

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage, TlsMode, parse
from malote_dev.mailworld.mx import SinkMx

CONTENT = b"From: ana@acme.example\r\nTo: bob@dest.example\r\n\r\n.. a line that begins with dots\r\n\xc3\xa9\r\n"


@pytest.fixture
async def mx() -> AsyncIterator[SinkMx]:
    async with SinkMx(address="127.0.0.31", hostname="mx.dest.example") as host:
        yield host


def client(mx: SinkMx, *, start_tls: bool | None = False, timeout: float = 30) -> SMTP:
    trust = ssl.create_default_context(cadata=mx.authority.pem.decode())
    return SMTP(
        hostname=mx.address,
        port=mx.port,
        local_hostname="out.relay.example",
        start_tls=start_tls,
        tls_context=trust,
        timeout=timeout,
    )


async def send(mx: SinkMx, *recipients: str, start_tls: bool | None = False, timeout: float = 30) -> str:
    async with client(mx, start_tls=start_tls, timeout=timeout) as smtp:
        _, words = await smtp.sendmail("ana@acme.example", recipients or ("bob@dest.example",), CONTENT)
        return words


async def code_at_rcpt(mx: SinkMx, recipient: str = "bob@dest.example") -> int:
    async with client(mx) as smtp:
        await smtp.ehlo()
        await smtp.mail("ana@acme.example")
        try:
            return (await smtp.rcpt(recipient)).code
        except aiosmtplib.SMTPRecipientRefused as error:
            return error.code


async def test_a_taken_message_is_kept_with_all_about_it(mx: SinkMx) -> None:
    await send(mx, "bob@dest.example", "eve@dest.example")
    (message,) = mx.messages
    assert message.content == CONTENT
    assert (message.mail_from, message.recipients) == ("ana@acme.example", ("bob@dest.example", "eve@dest.example"))
    assert (message.peer, message.helo, message.tls) == ("127.0.0.1", "out.relay.example", "")
    assert mx.connections == 1


async def test_the_null_sender_is_kept_as_empty(mx: SinkMx) -> None:
    async with client(mx) as smtp:
        await smtp.sendmail("", ["bob@dest.example"], CONTENT)
    assert mx.messages[0].mail_from == ""


async def test_dsn_is_offered_when_wanted_and_its_parameters_are_kept_as_written(mx: SinkMx) -> None:
    mx.dsn = True
    async with client(mx) as smtp:
        await smtp.sendmail(
            "ana@acme.example",
            ["bob@dest.example", "eve@dest.example"],
            CONTENT,
            mail_options=["RET=HDRS", "ENVID=aB1"],
            rcpt_options=["NOTIFY=SUCCESS", "ORCPT=rfc822;Bob@dest.example"],
        )
    (message,) = mx.messages
    assert {"RET=HDRS", "ENVID=aB1"} < set(message.mail_options)
    assert message.rcpt_options == (("NOTIFY=SUCCESS", "ORCPT=rfc822;Bob@dest.example"),) * 2


async def test_dsn_is_refused_where_it_is_not_offered(mx: SinkMx) -> None:
    async with client(mx) as smtp:
        await smtp.ehlo()
        assert "dsn" not in smtp.esmtp_extensions
        with pytest.raises(aiosmtplib.SMTPResponseException, match="not recognized"):
            await smtp.mail("ana@acme.example", options=["RET=HDRS"])


async def test_commands_sent_in_one_go_are_all_answered(mx: SinkMx) -> None:
    reader, writer = await asyncio.open_connection(mx.address, mx.port)
    writer.write(b"EHLO a\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@dest.example>\r\nDATA\r\n")
    writer.write(b"x\r\n.\r\nQUIT\r\n")
    replies = (await asyncio.wait_for(reader.read(), 30)).decode()
    writer.close()
    assert "250-PIPELINING" in replies
    assert [line[:4] for line in replies.splitlines() if line[3] == " "] == [
        "220 ", "250 ", "250 ", "250 ", "354 ", "250 ", "221 ",
    ]  # fmt: skip
    assert len(mx.messages) == 1


async def test_no_authentication_is_offered(mx: SinkMx) -> None:
    async with client(mx, start_tls=True) as smtp:
        await smtp.ehlo()
        assert not smtp.supports_extension("auth")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("defer", 451, "4.3.0"),
        ("refuse", 550, "5.1.1"),
        ("refuse-policy", 550, "5.7.1"),
        ("greylist", 451, "4.7.1"),
    ],
)
async def test_a_recipient_can_be_refused_in_each_way(mx: SinkMx, text: str, code: int, words: str) -> None:
    mx.recipients["eve@dest.example"] = parse(text)
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refusal:
        await send(mx, "Eve@dest.example")
    (error,) = refusal.value.recipients
    assert (error.code, error.message[:5]) == (code, words)
    await send(mx, "bob@dest.example")
    assert [message.recipients for message in mx.messages] == [("bob@dest.example",)]


async def test_greylisting_accepts_what_comes_again(mx: SinkMx) -> None:
    mx.behaviour = Behaviour(action=Action.GREYLIST)
    assert await code_at_rcpt(mx) == 451
    assert await code_at_rcpt(mx) == 250
    assert await code_at_rcpt(mx, "eve@dest.example") == 451


async def test_a_behaviour_can_end_by_itself(mx: SinkMx) -> None:
    mx.behaviour = Behaviour(action=Action.DEFER, reply="452 4.2.2 Mailbox full", times=2)
    assert [await code_at_rcpt(mx) for _ in range(3)] == [452, 452, 250]


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.DATA, Stage.MESSAGE])
async def test_a_refusal_at_a_later_stage_keeps_nothing(mx: SinkMx, stage: Stage) -> None:
    mx.behaviour = Behaviour(action=Action.REFUSE_POLICY, stage=stage)
    with pytest.raises(aiosmtplib.SMTPResponseException) as refusal:
        await send(mx)
    assert refusal.value.code == 550
    assert mx.messages == []


async def test_a_recipients_behaviour_can_wait_for_the_message(mx: SinkMx) -> None:
    mx.recipients["eve@dest.example"] = Behaviour(action=Action.DEFER, stage=Stage.MESSAGE)
    with pytest.raises(aiosmtplib.SMTPDataError):
        await send(mx, "bob@dest.example", "eve@dest.example")
    await send(mx, "bob@dest.example")


@pytest.mark.parametrize("stage", list(Stage))
async def test_the_connection_breaks_at_the_chosen_stage(mx: SinkMx, stage: Stage) -> None:
    mx.behaviour = Behaviour(action=Action.DROP, stage=stage)
    with pytest.raises((aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPConnectError)):
        await send(mx)
    assert mx.messages == []
    assert mx.commands[-1].verb == stage.value.upper()


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.RCPT, Stage.MESSAGE])
async def test_a_silent_host_never_replies(mx: SinkMx, stage: Stage) -> None:
    mx.behaviour = Behaviour(action=Action.SILENT, stage=stage)
    with pytest.raises(aiosmtplib.SMTPTimeoutError):
        await send(mx, timeout=0.3)
    assert mx.messages == []


async def test_an_empty_reply_is_no_reply(mx: SinkMx) -> None:
    mx.behaviour = Behaviour(action=Action.EMPTY, stage=Stage.MAIL)
    reader, writer = await asyncio.open_connection(mx.address, mx.port)
    writer.write(b"HELO a\r\nMAIL FROM:<a@x.example>\r\n")
    lines = [await asyncio.wait_for(reader.readline(), 30) for _ in range(3)]
    writer.close()
    assert lines[2] == b"\r\n"


async def test_a_busy_host_says_421_and_closes(mx: SinkMx) -> None:
    mx.behaviour = parse("busy")
    reader, writer = await asyncio.open_connection(mx.address, mx.port)
    assert (await asyncio.wait_for(reader.read(), 30)).startswith(b"421 4.3.2 ")
    writer.close()


async def test_a_refusing_host_greets_with_554(mx: SinkMx) -> None:
    mx.behaviour = parse("refuse-policy@connect")
    with pytest.raises(aiosmtplib.SMTPConnectResponseError) as refusal:
        await send(mx)
    assert refusal.value.code == 554


async def test_a_slow_host_takes_its_time_for_each_reply(mx: SinkMx) -> None:
    mx.behaviour = Behaviour(action=Action.SLOW, stage=Stage.CONNECT, delay=0.1)
    started = asyncio.get_running_loop().time()
    await send(mx)
    assert asyncio.get_running_loop().time() - started >= 0.5


async def test_a_good_certificate_is_believed(mx: SinkMx) -> None:
    await send(mx, start_tls=True)
    assert mx.messages[0].tls == "TLSv1.3"


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [
        (TlsMode.SELF_SIGNED, "self-signed certificate"),
        (TlsMode.EXPIRED, "certificate has expired"),
        (TlsMode.WRONG_NAME, "IP address mismatch"),
    ],
)
async def test_a_bad_certificate_is_not_believed_but_encrypts(mx: SinkMx, mode: TlsMode, complaint: str) -> None:
    mx.tls = mode
    with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
        await send(mx, start_tls=True)
    async with SMTP(hostname=mx.address, port=mx.port, start_tls=True, validate_certs=False) as careless:
        await careless.sendmail("ana@acme.example", ["bob@dest.example"], CONTENT)
    assert mx.messages[0].tls.startswith("TLSv1")


async def test_without_starttls_it_is_not_offered(mx: SinkMx) -> None:
    mx.tls = TlsMode.NONE
    async with client(mx) as smtp:
        await smtp.ehlo()
        assert not smtp.supports_extension("starttls")


async def test_starttls_can_be_unavailable(mx: SinkMx) -> None:
    mx.tls = TlsMode.UNAVAILABLE
    with pytest.raises(aiosmtplib.SMTPException, match="TLS not available"):
        await send(mx, start_tls=True)
    await send(mx)


async def test_the_tls_handshake_can_break(mx: SinkMx) -> None:
    mx.tls = TlsMode.BROKEN
    with pytest.raises((aiosmtplib.SMTPException, OSError)):
        await send(mx, start_tls=True)
    await send(mx)


async def test_a_stopped_host_is_gone_and_comes_back_on_its_port(mx: SinkMx) -> None:
    reader, writer = await asyncio.open_connection(mx.address, mx.port)
    await reader.readline()
    await mx.stop()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.readexactly(1), 30)
    writer.close()
    with pytest.raises(aiosmtplib.SMTPConnectError):
        await send(mx)
    await mx.start()
    await send(mx)


async def test_waiting_for_mail_ends_with_the_mail_or_says_what_came(mx: SinkMx) -> None:
    waiting = asyncio.create_task(mx.wait_for(2))
    await send(mx)
    await send(mx)
    assert len(await waiting) == 2
    with pytest.raises(TimeoutError, match="2 of 3 messages"):
        await mx.wait_for(3, timeout=0.05)


def test_a_behaviour_is_read_from_text_and_a_wrong_one_is_explained() -> None:
    assert parse("drop@data") == Behaviour(action=Action.DROP, stage=Stage.DATA)
    with pytest.raises(ValueError, match=r"write ACTION\[@STAGE\]"):
        parse("explode")
