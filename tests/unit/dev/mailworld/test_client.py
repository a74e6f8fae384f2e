"""The application's client against an SMTP server that wants TLS and a password."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from malote_dev.mailworld import client
from malote_dev.mailworld.certificates import CertificateAuthority
from malote_dev.mailworld.client import Endpoint, Security, Sent

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
MESSAGE = b"From: ana@acme.example\nSubject: hi\n\n.dot\n"


class Server:
    """Takes mail from app/secret; refuses the recipient full@dest.example, and content with the word virus."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("full"):
            return "452 4.2.2 Mailbox full"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        if b"virus" in content:
            return "554 5.7.1 No viruses"
        self.contents.append(content)
        return "250 2.0.0 kept as 1"


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: object) -> AuthResult:
    return AuthResult(success=given == LoginPassword(b"app", b"secret"), handled=False)


@dataclass
class Submission:
    server: Server
    starttls: Endpoint
    tls: Endpoint
    plain: Endpoint


@pytest.fixture
async def submission(tmp_path: Path) -> AsyncIterator[Submission]:
    authority, server = CertificateAuthority(), Server()
    context = authority.server_context(["acme.smtp.example"])
    loop = asyncio.get_running_loop()

    def protocol(tls_context: ssl.SSLContext | None) -> SMTP:
        return SMTP(
            server,
            hostname="acme.smtp.example",
            tls_context=tls_context,
            authenticator=authenticate,
            auth_required=True,
            auth_require_tls=tls_context is not None,  # the other listener is TLS from its first octet
            loop=loop,
        )

    starttls = await loop.create_server(lambda: protocol(context), "127.0.0.1", 0)
    tls = await loop.create_server(lambda: protocol(None), "127.0.0.1", 0, ssl=context)
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.pem)

    def endpoint(listener: asyncio.Server, security: Security) -> Endpoint:
        port = listener.sockets[0].getsockname()[1]
        return Endpoint("acme.smtp.example", port, security, ca_file, address="127.0.0.1", timeout=30)

    yield Submission(
        server,
        endpoint(starttls, Security.STARTTLS),
        endpoint(tls, Security.TLS),
        endpoint(starttls, Security.NONE),
    )
    starttls.close()
    tls.close()


async def send(
    endpoint: Endpoint, *recipients: str, password: str = "secret", message: bytes = MESSAGE
) -> Sent:  # fmt: skip
    return await asyncio.to_thread(
        client.send, endpoint, "app", password, "ana@acme.example", recipients or ("bob@dest.example",), message
    )


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_mail_goes_over_both_kinds_of_tls_and_the_final_reply_is_kept(
    submission: Submission, security: str
) -> None:
    sent = await send(getattr(submission, security))
    assert sent.accepted
    assert str(sent) == "250 2.0.0 kept as 1"
    assert submission.server.contents == [MESSAGE.replace(b"\n", b"\r\n")]


async def test_a_wrong_password_is_a_result_with_the_servers_words(submission: Submission) -> None:
    sent = await send(submission.starttls, password="guess")
    assert not sent.accepted
    assert (sent.reply.code, sent.reply.command) == (535, "AUTH")
    assert sent.reply.text


async def test_auth_without_tls_is_a_result_with_the_servers_words(submission: Submission) -> None:
    sent = await send(submission.plain)
    assert (sent.reply.code, sent.reply.command) == (538, "AUTH")


async def test_a_refused_recipient_is_told_apart_from_the_others(submission: Submission) -> None:
    sent = await send(submission.starttls, "full@dest.example", "bob@dest.example")
    assert sent.accepted
    assert {who: str(reply) for who, reply in sent.refused.items()} == {"full@dest.example": "452 4.2.2 Mailbox full"}


async def test_with_every_recipient_refused_the_message_is(submission: Submission) -> None:
    sent = await send(submission.starttls, "full@dest.example")
    assert (sent.reply.code, sent.reply.command) == (452, "RCPT")
    assert submission.server.contents == []


async def test_one_connection_carries_on_after_a_refusal(submission: Submission) -> None:
    def several() -> list[int]:
        with client.connect(submission.starttls, "app", "secret") as session:
            return [
                session.send("ana@acme.example", [recipient], message).reply.code
                for recipient, message in (
                    ("full@dest.example", MESSAGE),
                    ("bob@dest.example", MESSAGE + b"virus\n"),
                    ("bob@dest.example", MESSAGE),
                )
            ]

    assert await asyncio.to_thread(several) == [452, 554, 250]


async def test_a_certificate_for_another_name_is_not_accepted(submission: Submission) -> None:
    for endpoint in (submission.starttls, submission.tls):
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            await send(replace(endpoint, host="evil.example"))
