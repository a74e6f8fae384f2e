"""Reports as other servers send them, how they are brought, and what is found of them afterwards."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from typing import Any

HOST = "bounces.acme.example"
FEEDBACK = f"fbl@{HOST}"


async def bring(relay: Any, to: str, content: bytes, *, sender: str = "", tls: bool = False) -> tuple[int, str]:
    """Bring a message to the bounce port as a remote server does: the last reply."""

    def talk() -> tuple[int, str]:
        with smtplib.SMTP("127.0.0.1", relay.relay.bounces.port, "mx.dest.example", timeout=60) as client:
            if tls:
                context = ssl._create_unverified_context()
                client.starttls(context=context)
            try:
                client.sendmail(sender or "<>", [to], content)
            except smtplib.SMTPRecipientsRefused as refused:
                code, words = next(iter(refused.recipients.values()))
                return code, words.decode()
            except smtplib.SMTPResponseException as refused:
                said = refused.smtp_error
                return refused.smtp_code, said.decode() if isinstance(said, bytes) else said
            return 250, ""

    return await asyncio.to_thread(talk)


async def events(relay: Any) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = await relay.relay._store.read(
        lambda connection: connection.execute(
            "SELECT status, recipient, bounce_class, reply, host, account, header_from FROM events ORDER BY id"
        ).fetchall()
    )
    return rows


async def told(relay: Any) -> list[tuple[Any, ...]]:
    return [row for row in await events(relay) if row[0] in ("bounced", "complained")]


async def gone(relay: Any, count: int) -> None:
    """Wait until so many deliveries are written down: what they were of is no longer kept."""
    async with asyncio.timeout(60):
        while [row[0] for row in await events(relay)].count("delivered") < count:  # noqa: ASYNC110  # it is told nowhere
            await asyncio.sleep(0.02)


async def sent(relay: Any, site: Any, compose: Any, *to: str) -> list[Any]:
    """Send a message; what the recipients' host received."""
    await relay.send(compose(), to=to or ("bob@dest.example",))
    messages: list[Any] = await site.world.mx.wait_for(len(to) or 1)
    return messages


def dsn(
    recipient: str,
    *,
    action: str = "failed",
    status: str = "5.1.1",
    said: str = "550 5.1.1 no such user",
    original: bytes = b"",
) -> bytes:
    report = (
        "From: MAILER-DAEMON@dest.example\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n--b\r\n'
        "Content-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        f"Reporting-MTA: dns; mx.dest.example\r\n\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: {action}\r\n"
        f"Status: {status}\r\nDiagnostic-Code: smtp; {said}\r\n\r\n"
    ).encode()
    if original:
        report += b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + original + b"\r\n"
    return report + b"--b--\r\n"


def arf(original: bytes, kind: str = "abuse", more: str = "") -> bytes:
    return (
        b"From: fbl@provider.example\r\nSubject: abuse report\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n--b\r\n'
        b"Content-Type: text/plain\r\n\r\nA complaint.\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\n"
        + f"Feedback-Type: {kind}\r\nUser-Agent: Provider/1\r\nVersion: 1\r\n{more}\r\n--b\r\n".encode()
        + b"Content-Type: message/rfc822\r\n\r\n"
        + original
        + b"\r\n--b--\r\n"
    )
