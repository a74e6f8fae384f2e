"""Mailboxes and paths: RFC 5321 section 4.1.2, RFC 6531."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.submission.address import AddressError, Mailbox, domain, mailbox, take_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ana@acme.example", Mailbox("ana", "acme.example")),
        ("Ana.Souza+x@ACME.Example", Mailbox("Ana.Souza+x", "acme.example")),
        ('"a b"@acme.example', Mailbox('"a b"', "acme.example")),
        ('"a\\"@b"@acme.example', Mailbox('"a\\"@b"', "acme.example")),
        ('"ana"@acme.example', Mailbox("ana", "acme.example")),
        ('"a\\n\\a.b"@acme.example', Mailbox("ana.b", "acme.example")),
        ('"a\\ b"@acme.example', Mailbox('"a b"', "acme.example")),
        ('"a."@acme.example', Mailbox('"a."', "acme.example")),
        ("joão@açaí.example", Mailbox("joão", "xn--aa-4iaz.example")),
        ("joão@AçaíSP.Example", Mailbox("joão", "xn--aasp-0oa1b.example")),
        ("x@xn--aa-4iaz.example", Mailbox("x", "xn--aa-4iaz.example")),
        ("!#$%&'*+/=?^_`{|}~-@a.b", Mailbox("!#$%&'*+/=?^_`{|}~-", "a.b")),
    ],
)
def test_a_valid_mailbox_is_read(text: str, expected: Mailbox) -> None:
    assert mailbox(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "ana", "ana@", "@acme.example", "ana@acme", "ana@acme..example", "ana@.example", "ana@acme.example.",
        "ana@-acme.example", "ana@acme-.example", "ana@acme_x.example", "ana@1.2.3.4", "ana@[1.2.3.4]", ".ana@a.b",
        "ana.@a.b", "a..b@a.b", "a b@a.b", "a@b@a.b", "a\r\nb@a.b", "a\0@a.b", '"a@a.b', '"a"b@a.b', "a<b@a.b",
        "x" * 65 + "@a.b", "a@" + "x" * 64 + ".b", "a@" + "x." * 130 + "b", "ana@a.b\n", "a@\u2024.example",
        "ana@ａcme.example", "ana@acme。example", "ana@acme．example", "ana@AÇAÍ.example", "ana@☃.example",
        "boss＠bank.example@acme.example", "a\u202ena@acme.example", "a\u00a0a@acme.example", "a\u2024a@acme.example",
    ],
)  # fmt: skip
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        mailbox(text)


@pytest.mark.parametrize(
    ("text", "inside", "rest"),
    [
        ("<a@b.c>", "a@b.c", ""),
        (" <a@b.c> SIZE=1 BODY=7BIT", "a@b.c", "SIZE=1 BODY=7BIT"),
        ("<>", "", ""),
        ('<"a>b"@b.c> X', '"a>b"@b.c', "X"),
        ('<"a\\">"@b.c>', '"a\\">"@b.c', ""),
        ("<@x.y,@z.w:a@b.c>", "a@b.c", ""),
    ],
)
def test_paths_are_taken_off_a_commands_argument(text: str, inside: str, rest: str) -> None:
    assert take_path(text) == (inside, rest)


@pytest.mark.parametrize("text", ["", "a@b.c", "<a@b.c", "<a@b.c>SIZE=1", '<"a@b.c>'])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        take_path(text)


@given(st.text(max_size=40))
def test_every_text_is_a_mailbox_or_an_address_error(text: str) -> None:
    try:
        found = mailbox(text)
    except AddressError:
        return
    assert domain(found.domain) == found.domain
    assert not set(str(found)) & set("\r\n\0")
