"""Messages in 7 bits, as Python's own parser sees them."""

from __future__ import annotations

import email
import email.message
from collections.abc import Iterator
from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from malote_relay.delivery.conversion.fields import Unconvertible
from malote_relay.delivery.conversion.rewrite import look, rewrite
from malote_relay.delivery.conversion.structure import MAX_DEPTH

HEAD = b"From: Ana <ana@acme.example>\r\nSubject:  folded\r\n\tsubject\r\nMIME-Version: 1.0\r\n"
TEXT = "Olá, mundo.\r\n".encode()


def converted(message: bytes) -> bytes:
    target = BytesIO()
    rewrite(BytesIO(message).read, look(BytesIO(message).read), target.write)
    return target.getvalue()


def leaves(message: bytes) -> Iterator[tuple[str, bytes]]:
    """The type and the decoded content of each part that has none below it."""
    for part in email.message_from_bytes(message).walk():
        if not part.is_multipart():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            yield part.get_content_type(), content


def raw_lines(message: bytes) -> list[bytes]:
    return message.split(b"\r\n")


# Entities as hypothesis makes them: header and body without the line end that belongs to a boundary.

_WORDS = st.sampled_from(
    [
        b"a",
        b" ",
        b"\t",
        b"-",
        b"--",
        b"--b",
        b"--bb",
        b"=",
        b".",
        b"From ",
        b"\r\n",
        b"\r\n",
        "é".encode(),
        b"\xff",
        b"x" * 80,
    ]
)
_BODIES = st.lists(_WORDS, max_size=20).map(b"".join)
_ASCII_BODIES = _BODIES.filter(bytes.isascii)
_TYPES = st.sampled_from(
    [
        b"",
        b"Content-Type: text/plain; charset=utf-8\r\n",
        b"content-type: TEXT/HTML;\r\n\tcharset=iso-8859-1\r\n",
        b'Content-Type: application/octet-stream; name="x;boundary=b"\r\n',
        b"Content-Type: image/png\r\nContent-ID: <1@x>\r\n",
    ]
)
_ENCODINGS = st.sampled_from(
    [b"", b"Content-Transfer-Encoding: 8bit\r\n", b"content-transfer-encoding:\r\n 8BIT (yes)\r\n",
     b"Content-Transfer-Encoding: binary\r\n", b"Content-Transfer-Encoding: 7bit\r\n"]
)  # fmt: skip
_LEAVES = st.builds(lambda kind, encoding, body: (kind + encoding, body), _TYPES, _ENCODINGS, _BODIES)
_ENCODED_LEAVES = st.builds(
    lambda encoding, body: (b"Content-Type: text/plain\r\nContent-Transfer-Encoding: " + encoding + b"\r\n", body),
    st.sampled_from([b"quoted-printable", b"base64", b"x-unheard-of"]),
    _ASCII_BODIES,
)


def _multipart(
    parts: list[tuple[bytes, bytes]], name: bytes, closed: bool, around: tuple[bytes, bytes]
) -> tuple[bytes, bytes]:
    before, after = around
    delimiter = b"--" + name
    body = (before + b"\r\n" if before else b"") + b"".join(
        delimiter + b"\r\n" + header + b"\r\n" + content + b"\r\n" for header, content in parts
    )
    if closed:
        body += delimiter + b"--" + (b"\r\n" + after if after else b"")
    else:
        body = body.removesuffix(b"\r\n")
    return b'Content-Type: multipart/mixed; boundary="' + name + b'"\r\nContent-Transfer-Encoding: 8bit\r\n', body


def _nest(inner: st.SearchStrategy[tuple[bytes, bytes]]) -> st.SearchStrategy[tuple[bytes, bytes]]:
    names = st.sampled_from([b"b", b"bb", b"b b", b"=_b=", b"b-", b"b:c"])
    around = st.tuples(st.sampled_from([b"", b"preamble", "olá".encode()]), st.sampled_from([b"", b"end", b"--b"]))
    multiparts = st.builds(_multipart, st.lists(inner, min_size=1, max_size=3), names, st.booleans(), around)
    messages = inner.map(
        lambda one: (b"Content-Type: message/rfc822\r\n", b"Subject: inner\r\n" + one[0] + b"\r\n" + one[1])
    )
    return st.one_of(multiparts, messages)


_ENTITIES = st.recursive(st.one_of(_LEAVES, _ENCODED_LEAVES), _nest, max_leaves=6)
_SETTINGS = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])


@_SETTINGS
@given(_ENTITIES)
def test_every_part_decodes_to_what_it_was_and_all_of_it_is_seven_bits(one: tuple[bytes, bytes]) -> None:
    message = HEAD + one[0] + b"\r\n" + one[1] + b"\r\n"
    try:
        result = converted(message)
    except Unconvertible as why:
        # Only for what the making of messages by chance may bring about.
        assert "same boundary" in str(why)  # noqa: PT017
        return
    assert result.isascii()
    assert list(leaves(result)) == list(leaves(message))
    assert converted(result) == result
    if all(len(line) <= 76 for line in raw_lines(message)):
        assert all(len(line) <= 76 for line in raw_lines(result))


@_SETTINGS
@given(_ENTITIES)
def test_what_is_seven_bits_already_stays_octet_for_octet(one: tuple[bytes, bytes]) -> None:
    message = (HEAD + one[0] + b"\r\n" + one[1] + b"\r\n").replace(b"8bit", b"7bit").replace(b"8BIT", b"7bit")
    message = message.replace(b"binary", b"7bit")
    if message.isascii():
        try:
            assert converted(message) == message
        except Unconvertible as why:
            assert "same boundary" in str(why)  # noqa: PT017


def test_text_becomes_quoted_printable_and_other_content_base64_and_the_rest_stays() -> None:
    message = (
        HEAD + b'Content-Type: multipart/mixed; boundary="b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\nbefore\r\n'
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
        b"X-Kept:  a\r\n\t b\r\n\r\n"
        + TEXT
        + b"--bb is no boundary\r\n--b  \r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\xff\r\n"
        b"--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\nplain -- = text\t\r\n"
        b"--b--\r\nafter\r\n"
    )
    assert converted(message) == (
        HEAD + b'Content-Type: multipart/mixed; boundary="b"\r\nContent-Transfer-Encoding: 7bit\r\n\r\nbefore\r\n'
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"
        b"X-Kept:  a\r\n\t b\r\n\r\nOl=C3=A1, mundo.\r\n"
        b"=2D-bb is no boundary\r\n--b  \r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        b"iVBORw0K/w==\r\n"
        b"--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 7bit\r\n\r\nplain -- = text\t\r\n"
        b"--b--\r\nafter\r\n"
    )


@pytest.mark.parametrize(("body", "charset"), [(TEXT, b"utf-8"), (b"Ol\xe1\r\n", b"unknown-8bit")])
def test_text_that_says_nothing_of_itself_is_described(body: bytes, charset: bytes) -> None:
    result = converted(b"From: a@acme.example\r\n\r\n" + body)
    header, _, _ = result.partition(b"\r\n\r\n")
    assert header.split(b"\r\n")[1:] == [
        b"Content-Transfer-Encoding: quoted-printable",
        b"Content-Type: text/plain; charset=" + charset,
        b"MIME-Version: 1.0",
    ]
    assert list(leaves(result)) == [("text/plain", body)]


def test_a_message_within_is_converted_inside_and_never_encoded_as_a_whole() -> None:
    message = (
        HEAD + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        b"Subject: within\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + TEXT
    )
    result = converted(message)
    assert b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nSubject: within\r\n" in result
    assert list(leaves(result)) == [("text/plain", TEXT)]


def test_a_digests_parts_are_messages() -> None:
    message = (
        HEAD
        + b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: one\r\n\r\n"
        + TEXT
        + b"--b--\r\n"
    )
    assert b"--b\r\n\r\nSubject: one\r\nContent-Transfer-Encoding: quoted-printable\r\n" in converted(message)


def test_message_global_may_be_encoded_as_it_is() -> None:
    within = "Subject: olá\r\n\r\nx\r\n".encode()
    result = converted(HEAD + b"Content-Type: message/global\r\n\r\n" + within)
    assert b"Content-Transfer-Encoding: base64\r\n" in result


def test_the_relays_own_signatures_go_and_those_of_others_stay() -> None:
    own = b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n d=Acme.example; s=m; b=\r\n x\r\n"
    rest = b"Received: by out.example\r\nDKIM-Signature: v=1; d=other.example\r\n" + HEAD + b"\r\n"
    plan = look(BytesIO(own + own + rest + TEXT).read)
    assert plan.domain == "acme.example"
    result = converted(own + own + rest + TEXT)
    assert result.startswith(b"Received: by out.example\r\nDKIM-Signature: v=1; d=other.example\r\n")
    assert look(BytesIO(rest + TEXT).read).domain == ""


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Subject: olá\r\n\r\nx\r\n".encode(), "header field Subject"),
        (HEAD + b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n" + TEXT + b"--b--\r\n", "signed"),
        (HEAD + b"Content-Type: multipart/encrypted; boundary=b\r\n\r\n--b\r\n\r\n" + TEXT, "encrypted"),
        (HEAD + b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\n" + TEXT, "without a boundary"),
        (HEAD + b"Content-Type: message/partial; id=1\r\n\r\n" + TEXT, "message/partial"),
        (HEAD + b"Content-Type: nonsense\r\n\r\n" + TEXT, "cannot be read"),
        (HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + TEXT, "says that it is base64"),
        (HEAD + b"Content-Transfer-Encoding: x-uue\r\n\r\n" + TEXT, "says that it is x-uue"),
        (HEAD + b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n" + TEXT, "2 Content-Type fields"),
        (HEAD + b"\r\na\nb\xff\r\n", "stands alone"),
        (HEAD + b"\r\n\xff" + b"x" * 200_000, "more than 65536 octets"),
        (HEAD + b"X: " + b"y" * 60_000 + b"\r\n " + b"y" * 60_000 + b"\r\n" + b"Y: z\r\n" * 30_000, "header section"),
        (
            HEAD + b"".join(b"Content-Type: message/rfc822\r\n\r\n" for _ in range(MAX_DEPTH + 1)) + b"\r\n\xff\r\n",
            "nested",
        ),
    ],
)  # fmt: skip
def test_what_has_no_form_in_seven_bits_is_refused_with_the_reason(message: bytes, words: str) -> None:
    with pytest.raises(Unconvertible, match=words):
        look(BytesIO(message).read)


def test_a_signed_part_of_seven_bits_is_no_obstacle() -> None:
    signed = (
        b"--s\r\nContent-Type: text/plain\r\n\r\nola\r\n"
        b"--s\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--s--\r\n"
    )
    message = (
        HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n" + signed + b"--b\r\n\r\n" + TEXT + b"--b--\r\n"
    )
    result = converted(message)
    assert signed in result
    assert result.isascii()
