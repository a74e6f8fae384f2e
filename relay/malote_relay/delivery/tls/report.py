"""A day's TLS report: its JSON, its mail, and where a domain wants it. RFC 8460 sections 3, 4 and 5.3. Pure."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from malote_relay.delivery.tls.results import Applied
from malote_relay.delivery.tls.tally import DAY, Row

MAX_DESTINATIONS: Final = 3
HTTPS: Final = 443

_ADDRESS: Final = re.compile(r"[^\x00-\x20\x7f<>@\"(),:;\[\]\\]{1,64}@[A-Za-z0-9._-]{1,253}")


def destinations(texts: Iterable[bytes]) -> tuple[str, ...]:
    """Where reports are wanted, from the TXT records at `_smtp._tls.DOMAIN` (section 3): mailto: and https: URIs.

    Empty: there is no one valid record, so no report is wanted.
    """
    records = [one for one in texts if re.match(rb"v=TLSRPTv1[ \t]*;", one)]
    if len(records) != 1:
        return ()
    found: list[str] = []
    for field in records[0].decode("utf-8", "replace").split(";"):
        name, equals, value = field.strip().partition("=")
        if name.strip() == "rua" and equals:
            found += [uri for one in value.split(",") if _is_usable(uri := one.strip())]
    return tuple(dict.fromkeys(found))[:MAX_DESTINATIONS]


def _is_usable(uri: str) -> bool:
    if uri.lower().startswith("mailto:"):
        return _ADDRESS.fullmatch(mailbox(uri)) is not None
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme.lower() == "https" and bool(parts.hostname) and uri.isascii() and uri.isprintable()
        and " " not in uri and (port is None or port > 0) and not parts.username
    )  # fmt: skip


def port(uri: str) -> int | None:
    """The port of an https: URI; None for a mailto: one."""
    return None if uri.lower().startswith("mailto:") else urlsplit(uri).port or HTTPS


def mailbox(uri: str) -> str:
    """The address of a mailto: URI."""
    return unquote(uri[len("mailto:") :].partition("?")[0])


def text(
    domain: str, day: int, rows: Sequence[tuple[Row, int]], *, organization: str, contact: str, report_id: str
) -> bytes:
    """The report (section 4.4), as JSON."""
    policies: dict[str, list[tuple[Row, int]]] = {}
    for row, sessions in rows:
        policies.setdefault(row.policy, []).append((row, sessions))
    return msgspec.json.encode(
        {
            "organization-name": organization,
            "date-range": {"start-datetime": _instant(day * DAY), "end-datetime": _instant((day + 1) * DAY - 1)},
            "contact-info": contact,
            "report-id": report_id,
            "policies": [_policy(policy, counted) for policy, counted in policies.items()],
        }
    )


def _policy(policy: str, counted: Sequence[tuple[Row, int]]) -> dict[str, Any]:
    applied = msgspec.json.decode(policy, type=Applied)
    described: dict[str, Any] = {"policy-type": applied.kind, "policy-domain": applied.domain}
    if applied.text:
        described["policy-string"] = applied.text
    if applied.mx:
        described["mx-host"] = applied.mx
    failed = [(row, sessions) for row, sessions in counted if row.result]
    total = sum(sessions for _, sessions in counted)
    failures = sum(sessions for _, sessions in failed)
    told: dict[str, Any] = {
        "policy": described,
        "summary": {"total-successful-session-count": total - failures, "total-failure-session-count": failures},
    }
    if failed:
        told["failure-details"] = [_failure(row, sessions) for row, sessions in failed]
    return told


def _failure(row: Row, sessions: int) -> dict[str, Any]:
    named = {
        "result-type": row.result,
        "sending-mta-ip": row.local_address,
        "receiving-mx-hostname": row.mx,
        "receiving-ip": row.mx_address,
        "failure-reason-code": row.detail,
    }
    return {name: value for name, value in named.items() if value} | {"failed-session-count": sessions}


def file_name(domain: str, day: int, submitter: str) -> str:
    """What the report's file is called (section 5.1)."""
    return f"{submitter}!{domain}!{day * DAY}!{(day + 1) * DAY - 1}.json.gz"


def packed(report: bytes) -> bytes:
    """The report as it travels: the same octets for the same report."""
    return gzip.compress(report, mtime=0)


def mail(
    packed_report: bytes, *, domain: str, day: int, submitter: str, recipient: str, report_id: str, now: float
) -> bytes:
    """The report as a mail (section 5.3), CRLF line ends."""
    boundary = f"=_tlsrpt-{day}-{len(packed_report)}"
    encoded = base64.b64encode(packed_report).decode()
    name = file_name(domain, day, submitter)
    when = datetime.fromtimestamp(day * DAY, UTC).date().isoformat()
    lines = [
        f"From: <noreply-smtp-tls-reporting@{submitter}>",
        f"To: <{recipient}>",
        f"Subject: Report Domain: {domain}",
        f" Submitter: {submitter}",
        f" Report-ID: <{report_id}>",
        f"Date: {format_datetime(datetime.fromtimestamp(now, UTC))}",
        f"Message-ID: <{report_id}>",
        f"TLS-Report-Domain: {domain}",
        f"TLS-Report-Submitter: {submitter}",
        # RFC 8689: a report about broken TLS must not be kept back by it.
        "TLS-Required: No",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        'Content-Type: multipart/report; report-type="tlsrpt";',
        f'\tboundary="{boundary}"',
        "",
        "This is a report in MIME format.",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is an aggregate TLS report for {domain}",
        f"about sessions from {submitter} on {when} (UTC).",
        "",
        f"--{boundary}",
        "Content-Type: application/tlsrpt+gzip",
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment;",
        f'\tfilename="{name}"',
        "",
        *(encoded[at : at + 76] for at in range(0, len(encoded), 76)),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode()


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
