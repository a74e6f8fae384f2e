"""Handing a mail to the platform's own mail host (RFC 6409)."""

from __future__ import annotations

import asyncio
import datetime as dt
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

from malote_operator import metrics
from malote_operator.settings import MailSecurity, Notices

from .postman import Undeliverable

_TIMEOUT = 30.0


class Transport:
    """Sends by `settings.notices`. Mails are few: each has a connection of its own, in a thread.

    `password_file` takes the place of the settings' own: a pod names the file where it is mounted.
    """

    def __init__(self, notices: Notices, password_file: str = "") -> None:
        self._notices = notices
        self._password_file = password_file or notices.password_file

    async def send(self, message: EmailMessage) -> None:
        """Returns once the host has taken the mail over. Raises Undeliverable."""
        message["Date"] = format_datetime(dt.datetime.now(dt.UTC))
        try:
            await asyncio.to_thread(self._deliver, message)
        except (smtplib.SMTPException, OSError) as error:
            metrics.MAILS.labels("welcome", "failed").inc()
            where = f"{self._notices.host}:{self._notices.port}"
            raise Undeliverable(f"the platform's mail host {where} did not take the mail: {_words(error)}") from error
        metrics.MAILS.labels("welcome", "sent").inc()

    def _deliver(self, message: EmailMessage) -> None:
        notices = self._notices
        password = Path(self._password_file).read_text().strip() if self._password_file else ""
        context = ssl.create_default_context()
        if notices.security is MailSecurity.TLS:
            host: smtplib.SMTP = smtplib.SMTP_SSL(notices.host, notices.port, timeout=_TIMEOUT, context=context)
        else:
            host = smtplib.SMTP(notices.host, notices.port, timeout=_TIMEOUT)
        with host:
            if notices.security is MailSecurity.STARTTLS:
                host.starttls(context=context)
            if notices.username:
                host.login(notices.username, password)
            host.send_message(message)


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join(
            f"{address}: {code} {text.decode(errors='replace')}" for address, (code, text) in error.recipients.items()
        )
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        return f"{error.smtp_code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"
    return str(error) or type(error).__name__
