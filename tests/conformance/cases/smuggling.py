"""Only CRLF.CRLF ends the data (RFC 5321 sections 2.3.8, 4.1.1.4): no other text may, or a message can hide another.

Each variant stands in the middle of a message, and behind it a second transaction that a server would carry out if
it took the variant for the end. The server may refuse the message or take it, but as one; and what it passes on must
not make the next host see an end there (a bare LF or CR around a dot).
"""

from __future__ import annotations

from tests.conformance.case import DATA, HELLO, SHOULD, case, expect, matches
from tests.conformance.server import Server, token

VARIANTS = {
    "lf-dot-lf": b"\n.\n",
    "lf-dot-crlf": b"\n.\r\n",
    "cr-dot-cr": b"\r.\r",
    "cr-dot-crlf": b"\r.\r\n",
    "cr-dot-lf": b"\r.\n",
    "crlf-dot-lf": b"\r\n.\n",
    "crlf-dot-cr": b"\r\n.\r",
    "lf-dot-cr": b"\n.\r",
    "crlf-dot-cr-crlf": b"\r\n.\r\r\n",
    "lf-lf-dot-crlf": b"\n\n.\r\n",
    "cr-cr-dot-crlf": b"\r\r.\r\n",
    "lf-cr-dot-lf-cr": b"\n\r.\n\r",
    "nul-before-the-dot": b"\r\n\0.\r\n",
    "nul-after-the-dot": b"\r\n.\0\r\n",
    "nul-within-crlf": b"\r\0\n.\r\0\n",
    "nul-dot-nul": b"\0.\0",
    "blank-before-the-dot": b"\r\n .\r\n",
    "blank-after-the-dot": b"\r\n. \r\n",
    "tab-after-the-dot": b"\r\n.\t\r\n",
    "two-dots": b"\r\n..\r\n",
    "vertical-tab": b"\x0b.\x0b",
    "form-feed": b"\x0c.\x0c",
    "next-line": b"\x85.\x85",
    "utf8-next-line": "\u0085.\u0085".encode(),
    "line-separator": "\u2028.\u2028".encode(),
    "high-bits-set": b"\x8d\x8a.\x8d\x8a",
    "high-bit-dot": b"\r\n\xae\r\n",
    "overlong-dot": b"\r\n\xc0\xae\r\n",
    "fullwidth-dot": "\r\n．\r\n".encode(),
    "backspace-dot": b"\r\nx\x08.\r\n",
    "escaped-crlf": b"\\r\\n.\\r\\n",
    "ebcdic-newline": b"\x15.\x15",
    "record-separator": b"\x1e.\x1e",
}
"""What stood, or might stand, for an end of data somewhere."""


def _smuggled(server: Server, word: str) -> bytes:
    return (
        f"MAIL FROM:<{server.sender}>\r\nRCPT TO:<{server.recipient}>\r\nDATA\r\n"
        f"From: <{server.sender}>\r\nSubject: {word}\r\n\r\nsmuggled"
    ).encode()


def _declare(name: str, variant: bytes) -> None:
    def check(server: Server) -> None:
        word = token()
        octets = server.message(b"first") + variant + _smuggled(server, word) + b"\r\n.\r\nQUIT\r\n"
        for pieces in ([octets], [octets[i : i + 1] for i in range(len(octets))]):
            client = server.at(DATA)
            for piece in pieces:
                client.send(piece)
            replies = client.until_closed()
            codes = [reply.code for reply in replies]
            one_answer = len(codes) == 2 and codes[1] == 221 and codes[0] // 100 in {2, 4, 5}
            expect(one_answer, f"it took {variant!r} for the end: {' '.join(map(str, codes))}")
            if codes[0] // 100 == 2 and server.delivered is not None:
                for arrived in server.arrives(word):
                    left = arrived.content.replace(b"\r\n", b"")
                    expect(b"first" in arrived.content, "what stood behind the variant arrived as a message")
                    expect(b"\n" not in left and b"\r" not in left, "a bare CR or LF was passed on")

    check.__name__ = name.replace("-", "_")
    case("RFC5321-4.1.1.4", f"{variant!r} is no end of the data")(check)


for _name, _variant in VARIANTS.items():
    _declare(f"not-the-end-{_name}", _variant)


@case("RFC5321-2.3.8", "A command that ends in LF alone is no command, or is taken for one: never both at once")
def a_command_with_a_bare_lf(server: Server) -> None:
    client = server.at(HELLO)
    client.send(b"NOOP\nNOOP\r\nQUIT\r\n")
    codes = [reply.code for reply in client.until_closed()]
    expect(codes[-1] == 221 and len(codes) <= 3, f"replies {codes}")


@case("RFC5321-2.3.8", "A command line that ends in LF alone is not carried out", level=SHOULD)
def a_bare_lf_ends_no_command(server: Server) -> None:
    client = server.at(HELLO)
    client.send(b"NOOP\n")
    if not client.quiet(0.3):
        matches(client.reply(), "5xx")
