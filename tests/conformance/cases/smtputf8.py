"""Addresses and header fields beyond ASCII (RFC 6531, RFC 6532)."""

from __future__ import annotations

from tests.conformance.case import MAIL, SHOULD, SIGNED_IN, case, exchange, expect, matches
from tests.conformance.server import Server, token

_U = "SMTPUTF8"

exchange(
    "RFC6531-3.4",
    "smtputf8-parameter",
    "MAIL takes the parameter SMTPUTF8",
    SIGNED_IN,
    "MAIL FROM:<{sender}> SMTPUTF8",
    "250",
    needs=_U,
)
exchange(
    "RFC6531-3.4",
    "smtputf8-with-body",
    "SMTPUTF8 and BODY=8BITMIME go together",
    SIGNED_IN,
    "MAIL FROM:<{sender}> BODY=8BITMIME SMTPUTF8",
    "250",
    needs=_U,
)
exchange(
    "RFC6531-3.4",
    "smtputf8-with-value",
    "SMTPUTF8 has no value",
    SIGNED_IN,
    "MAIL FROM:<{sender}> SMTPUTF8=yes",
    "5xx",
    needs=_U,
)
exchange(
    "RFC6531-3.3",
    "utf8-recipient",
    "With SMTPUTF8 a recipient may be written in UTF-8",
    MAIL,
    "RCPT TO:<josé@{domain}>",
    "250",
    needs=_U,
    mail="SMTPUTF8",
)
exchange(
    "RFC6531-3.3",
    "utf8-quoted-recipient",
    "A quoted local part may have UTF-8, too",
    MAIL,
    'RCPT TO:<"josé b"@{domain}>',
    "250",
    needs=_U,
    mail="SMTPUTF8",
)
exchange(
    "RFC6531-3.3",
    "utf8-without-smtputf8",
    "Without SMTPUTF8 an address in UTF-8 is refused (550, 553 5.6.7)",
    MAIL,
    "RCPT TO:<josé@{domain}>",
    "550 553 501 5xx",
    needs=_U,
)
exchange(
    "RFC6531-3.3",
    "utf8-sender-without-smtputf8",
    "Without SMTPUTF8 a sender in UTF-8 is refused",
    SIGNED_IN,
    "MAIL FROM:<josé@example.com>",
    "550 553 501 5xx",
    needs=_U,
)
exchange(
    "RFC6531-3.3",
    "latin1-recipient",
    "Octets that are not UTF-8 are no address",
    MAIL,
    b"RCPT TO:<jos\xe9@{domain}>",
    "5xx",
    needs=_U,
    mail="SMTPUTF8",
)
exchange(
    "RFC6531-3.3",
    "overlong-utf8",
    "Overlong UTF-8 is no UTF-8",
    MAIL,
    b"RCPT TO:<a\xc0\xafb@{domain}>",
    "5xx",
    needs=_U,
    mail="SMTPUTF8",
)
exchange(
    "RFC6531-3.3",
    "surrogates",
    "Surrogates are no UTF-8",
    MAIL,
    b"RCPT TO:<a\xed\xa0\x80b@{domain}>",
    "5xx",
    needs=_U,
    mail="SMTPUTF8",
)
exchange(
    "RFC6531-3.7.4",
    "vrfy-utf8",
    "VRFY with SMTPUTF8 is answered as VRFY is",
    SIGNED_IN,
    "VRFY josé SMTPUTF8",
    "250 251 252 500 501 502 55x",
    needs=_U,
)
exchange(
    "RFC6531-3.5",
    "utf8-in-an-unknown-verb",
    "UTF-8 where a verb stands is no verb",
    SIGNED_IN,
    "ñOOP",
    "5xx 221",
    usable=False,
    needs=_U,
)


@case("RFC6531-3.1", "A server that offers SMTPUTF8 offers 8BITMIME", needs=_U)
def smtputf8_comes_with_8bitmime(server: Server) -> None:
    expect("8BITMIME" in server.offers, "8BITMIME is not offered")


@case("RFC6532-3.2", "A header section in UTF-8 arrives as it was", needs=_U, sees=True)
def a_utf8_header_arrives(server: Server) -> None:
    word = token()
    content = server.message(header="X-Name: Olá, 日本語\r\n", token=word)
    arrived = server.relayed(content, word, mail="SMTPUTF8 BODY=8BITMIME")
    expect(arrived.named("X-Name") == ["Olá, 日本語"], f"the header is {arrived.header}")


@case("RFC6531-3.2", "A recipient in UTF-8 gets the message", needs=_U, sees=True, level=SHOULD)
def a_utf8_recipient_gets_it(server: Server) -> None:
    word = token()
    domain = server.recipient.rpartition("@")[2]
    arrived = server.relayed(server.message(token=word), word, mail="SMTPUTF8", to=(f"josé@{domain}",))
    found = arrived.recipients
    expect(found is None or found[0] == f"josé@{domain}", f"it arrived for {found}")


@case("RFC6531-3.3", "The domain may be written in U-labels", needs=_U)
def a_domain_in_u_labels(server: Server) -> None:
    client = server.at(MAIL, mail="SMTPUTF8")
    matches(client.say("RCPT TO:<bob@ñandu.example>"), "250 251 450 451 550 554 45x")
    matches(client.say("NOOP"), "250")
