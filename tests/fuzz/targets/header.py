"""The header section: read without doubt or refused, policy and hygiene included; From as Python's email has it."""

from __future__ import annotations

import email
import email.policy
import re
from email.utils import getaddresses

from tests.fuzz.target import Target

from malote_relay.config import Account, AccountClass, Delivery, Domain, Plan, RelayConfig, Submission
from malote_relay.submission import headers, hygiene
from malote_relay.submission.address import AddressError, domain
from malote_relay.submission.headers import HeaderError
from malote_relay.submission.policy import Rules
from malote_relay.submission.replies import Reply

_ACCOUNTS = (
    Account(name="app", username="app@acme", verifier=""),
    Account(name="news", username="news@acme", verifier="", account_class=AccountClass.BULK),
)
_RULES = Rules(
    RelayConfig(
        tenant="acme",
        hostname="acme.smtp.example",
        plan=Plan(name="p", messages_per_hour=1),
        delivery=Delivery(helo_name="out.example"),
        submission=Submission(open=True),
        accounts=_ACCOUNTS,
        domains=(Domain(name="acme.example", sending=True), Domain(name="new.example")),
    )
)


def check(data: bytes) -> None:
    if not data.endswith(b"\r\n"):
        data += b"\r\n"  # content always ends so
    try:
        fields, offset = headers.split(data)
    except HeaderError as error:
        _is_for_people(error)
        return
    assert b"".join(field.raw for field in fields) == data[:offset] or not fields
    try:
        headers.refuse_repeated(fields)
    except HeaderError as error:
        _is_for_people(error)
        return
    for account in _ACCOUNTS:
        author = _RULES.header(fields, account)
        if isinstance(author, Reply):
            wire = author.wire()
            assert wire.endswith(b"\r\n")
            assert wire.isascii()
            continue
        assert author.domain == "acme.example"
        _reads_the_same(fields, str(author))
        header, message_id = hygiene.prepared(
            fields, by="out.example", protocol="ESMTPSA", queue_id="q1", from_domain="acme.example", at=1.8e9
        )
        again, end = headers.split(header + b"\r\n")
        assert end == len(header)
        assert message_id
        names = [field.name for field in again]
        assert names[0] == b"received"
        assert not {b"bcc", b"resent-bcc", b"return-path"} & set(names)
        for name in (b"from", b"date", b"message-id"):
            assert names.count(name) == 1, name


def _reads_the_same(fields: list[headers.Field], author: str) -> None:
    """What was vouched for is what others read, by either of the parsers of Python's email package."""
    raw = b"".join(field.raw for field in fields) + b"\r\n"
    lenient = email.message_from_string(raw.decode("utf-8", "surrogateescape"))
    found = lenient.get_all("from", [])
    assert len(found) == 1
    unfolded = re.sub(r"\r\n(?=[ \t])", "", str(found[0]))  # which this parser leaves to its caller
    _same([address for _, address in getaddresses([unfolded]) if address], author)
    try:
        modern = email.message_from_bytes(raw, policy=email.policy.default)["from"].addresses
    except Exception:
        return  # it stumbles over texts of its own: bpo issues, not ours
    _same([one.addr_spec for one in modern if one.addr_spec], author)


def _same(addresses: list[str], author: str) -> None:
    assert len(addresses) == 1, (addresses, author)
    read = addresses[0].encode("utf-8", "surrogateescape").decode("utf-8")
    local, _, host = read.rpartition("@")
    mine, _, own = author.rpartition("@")
    try:
        assert domain(host) == own, (addresses, author)
    except AddressError:
        raise AssertionError((addresses, author)) from None
    assert _unquoted(local) == _unquoted(mine), (addresses, author)


def _unquoted(local: str) -> str:
    return re.sub(r"\\(.)", r"\1", local[1:-1]) if local[:1] == '"' == local[-1:] and len(local) > 1 else local


def _is_for_people(error: Exception) -> None:
    assert str(error)


TARGET = Target(
    "header",
    check,
    words=(
        b"From: ",
        b"Sender: ",
        b"Resent-From: ",
        b"Date: ",
        b"Message-ID: ",
        b"Bcc: ",
        b"Subject: x\r\n",
        b"To: ",
        b"ana@acme.example",
        b"<ana@acme.example>",
        b"ceo@bank.example",
        b'"ana"@acme.example',
        b"Ana ",
        b'"A, B" ',
        b"(comment)",
        b"=?utf-8?q?x=40y?=",
        b"=?utf-8?b?4oCu?=",
        b", ",
        b";",
        b"\r\n ",
        b"\r\n\t",
        b"\r\n\r\n",
        b"group: ",
        b"List-Unsubscribe: <https://a.example/u>\r\n",
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
        b"Received: x\r\n",
        b"Return-Path: <x>\r\n",
        "ａcme.example".encode(),
        "\u202e".encode(),
        b"@",
        b"(",
        b")",
        b"[",
        b"]",
    ),
    seeds=(
        b"From: Ana <ana@acme.example>\r\nSubject: x\r\n\r\nbody\r\n",
        b'From: "Ana, B" <ana@acme.example> (x)\r\nSender: bia@acme.example\r\nBcc: x@y.example\r\n\r\n',
        b"From: =?utf-8?q?Jos=C3=A9?=\r\n <ana@acme.example>\r\nMessage-ID:\r\n <a@b>\r\n\r\n",
        b'From: "a\\"b"@acme.example\r\n\r\n',
    ),
    most=25,
)
