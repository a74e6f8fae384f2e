"""The header section and the address in From: read without doubt or refused."""

from __future__ import annotations

import email.policy
import time
from collections.abc import Callable
from email.parser import BytesParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.signing import canonical
from malote_relay.submission.address import Mailbox
from malote_relay.submission.headers import Field, HeaderError, mailboxes, only_mailbox, refuse_repeated, split

ANA = Mailbox("ana", "acme.example")


def from_(value: str | bytes) -> Field:
    octets = value if isinstance(value, bytes) else value.encode()
    return Field(b"from", b"From:" + octets + b"\r\n")


@pytest.mark.parametrize(
    "value",
    [
        " ana@acme.example",
        "ana@acme.example",
        "\tana@acme.example \t",
        "\r\n ana@acme.example",
        " <ana@acme.example>",
        " Ana <ana@acme.example>",
        " Ana\r\n\t<ana@acme.example>",
        " Ana Souza Jr. <ana@acme.example>",
        ' "Souza, Ana" <ana@acme.example>',
        ' "eve@other.example" <ana@acme.example>',
        ' "a \\" <eve@other.example>" <ana@acme.example>',
        " =?utf-8?q?Jo=C3=A3o?= <ana@acme.example>",
        " =?gb2312?b?xOO6ww==?= <ana@acme.example>",
        " =?gb2312?b?xOO6ww?= <ana@acme.example>",
        " =?utf-16?b?/v8AQQBu?= <ana@acme.example>",
        " =?iso-2022-jp?b?GyRCRnxLXBsoQg==?= <ana@acme.example>",
        " חברה\u200f <ana@acme.example>",
        " João da Silva <ana@acme.example>",
        " ana@acme.example (Ana)",
        " (a (nested) comment) Ana (b) <ana@acme.example> (c)",
        " Ana <ana@ACME.EXAMPLE>",
    ],
)
def test_one_address_however_it_is_dressed(value: str) -> None:
    assert only_mailbox(from_(value)) == ANA


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        " Ana",
        " <>",
        " ana@acme.example, bia@acme.example",
        " ana@acme.example,",
        " ,ana@acme.example",
        " eve@other.example <ana@acme.example>",
        " <ana@acme.example> <eve@other.example>",
        " <ana@acme.example> eve@other.example",
        " ana@acme.example eve@other.example",
        " Team: ana@acme.example;",
        " Team: ana@acme.example, eve@other.example;",
        " undisclosed-recipients:;",
        " <@other.example:ana@acme.example>",
        " <ana@other.example@acme.example>",
        ' <"eve@other.example"@acme.example>',
        " (eve@other.example) ana@acme.example",
        " Bob (<eve@other.example>) <ana@acme.example>",
        " Bob (a (nested <eve>) comment) <ana@acme.example>",
        " Bob (a \\@ b) <ana@acme.example>",
        " ana@acme.example (\0)",
        " Bob \u202eelpmaxe <ana@acme.example>",
        ' "Bob \u2066x" <ana@acme.example>',
        " Bob (\u202e) <ana@acme.example>",
        " Bob \u2028 <ana@acme.example>",
        " =?utf-8?q?Bob_=E2=80=AEx?= <ana@acme.example>",
        " =?UTF-8*en?B?4oCu?= <ana@acme.example>",
        " =?utf-8?q?Bob=E2=80?= =?utf-8?q?=AEx?= <ana@acme.example>",
        " =?utf-16?b?/v8gLg==?= <ana@acme.example>",
        " =?utf-8?b?x?= <ana@acme.example>",
        " =?utf-8?q?ceo=40bank.example=00?= <ana@acme.example>",
        " =?utf-8?q?ceo=40bank.example=0A?= <ana@acme.example>",
        " =?iso-8859-1?q?ceo=40bank.example?= =?iso-8859-1?b?AA==?= <ana@acme.example>",
        " =?us-ascii?q?ceo=40bank.example=0D=0A?= <ana@acme.example>",
        " =?utf-16?b?/v8AAA==?= <ana@acme.example>",
        " ana@ａcme.example",
        " ana@acme。example",
        " ana @acme.example",
        " ana@ acme.example",
        " <ana@acme.example >",
        " < ana@acme.example>",
        " ana(x)@acme.example",
        " ana@acme.example(x).other.example",
        " =?utf-8?q?ana=40other.example?=@acme.example",
        " ana@[127.0.0.1]",
        " ana@acme.example\0",
        " ana\x01@acme.example",
        " ana@acme.example (open",
        ' "open <ana@acme.example>',
        " <ana@acme.example",
        " ana@acme.example>",
        " >ana@acme.example<",
        " [ana@acme.example]",
        " ana@acme.example; eve@other.example",
        " a\\b <ana@acme.example>",
        b" Jo\xe3o <ana@acme.example>",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(value: str | bytes) -> None:
    with pytest.raises(HeaderError):
        only_mailbox(from_(value))


@given(st.text(alphabet='ab@.,<>"()\\ :;\t=?[]é\u202eａ。＠', max_size=30))
def test_whatever_is_accepted_the_standard_librarys_parser_reads_the_same_way(value: str) -> None:
    try:
        [found] = mailboxes(from_(f" {value}"))
    except (HeaderError, ValueError):
        return
    message = BytesParser(policy=email.policy.SMTPUTF8).parsebytes(f"From: {value}\r\n\r\n".encode())
    [address] = message["From"].addresses
    assert address.domain.lower() == found.domain


@pytest.mark.parametrize(
    "name",
    [
        "Date", "Subject", "To", "Cc", "Message-ID", "reply-TO", "References", "Content-Type",
        "Content-Transfer-Encoding",
    ],
)  # fmt: skip
def test_a_field_that_may_stand_once_stands_once(name: str) -> None:
    once = f"{name}: x\r\nReceived: a\r\nReceived: b\r\nBcc: a\r\nBcc: b\r\n"
    refuse_repeated(split(once.encode())[0])
    with pytest.raises(HeaderError, match=f"has 2 (?i:{name}) fields"):
        refuse_repeated(split(f"{once}{name.upper()}: y\r\n".encode())[0])


def test_a_blank_before_the_colon_is_told_as_such() -> None:
    with pytest.raises(HeaderError, match=r"line 2 .* blank before the colon: write 'From:'"):
        split(b"To: x\r\nFrom \t: a@b.c\r\n\r\n")


def test_fields_are_kept_octet_for_octet() -> None:
    section = b"From: a\r\n b\r\nSubject:x\r\nX-8: \xe9\r\n"
    fields, offset = split(section + b"\r\nbody\r\n\r\nmore")
    assert b"".join(field.raw for field in fields) == section
    assert [field.name for field in fields] == [b"from", b"subject", b"x-8"]
    assert offset == len(section)
    assert fields[0].value == "a b"


@pytest.mark.parametrize(
    "content",
    [
        b"From a@b Mon Jan 1 10:00:00 2026\r\nFrom: a@b.c\r\n\r\n", b"From : a@b.c\r\n\r\n", b": x\r\n\r\n",
        b" x\r\n\r\n", b"From: a\r\n \r\n\r\n", b"no colon\r\n\r\n", b"A b: c\r\n\r\n", b"\xc3\xa9: c\r\n\r\n",
    ],
)  # fmt: skip
def test_a_line_that_is_no_field_is_refused(content: bytes) -> None:
    with pytest.raises(HeaderError):
        split(content)


@pytest.mark.parametrize(("content", "offset"), [(b"", 0), (b"\r\nbody", 0), (b"A: b\r\n", 6), (b"A: b\r\n\r\n", 6)])
def test_a_message_may_lack_a_body_or_a_header(content: bytes, offset: int) -> None:
    assert split(content)[1] == offset


@given(st.binary(max_size=60))
def test_every_content_is_split_or_refused(content: bytes) -> None:
    sound = content.replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\n"
    try:
        fields, offset = split(sound)
    except HeaderError:
        return
    assert b"".join(field.raw for field in fields) == sound[:offset]


@pytest.mark.parametrize("alone", [b"\r", b"\n", b"\n\r", b"\r\r\n"])
def test_a_cr_or_lf_that_stands_alone_is_no_part_of_a_header(alone: bytes) -> None:
    with pytest.raises(HeaderError, match="stands alone"):
        split(b"From: ana@acme.example\r\nX: y" + alone + b"From: ceo@bank.example\r\n\r\n")


@pytest.mark.parametrize("read", [split, canonical.split_fields])
def test_a_field_of_very_many_lines_costs_no_more_than_as_many_octets(read: Callable[[bytes], object]) -> None:
    """Each line added to all before it would cost half a second for a message of 256 KiB: nobody else is served."""

    def seconds(lines: int) -> float:
        header = b"From: ana@acme.example\r\nX-Long: a\r\n" + b" a\r\n" * lines
        times = []
        for _ in range(3):
            began = time.process_time()
            read(header)
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(60_000) < 8 * seconds(15_000)  # four times as much; sixteen times if it were quadratic
