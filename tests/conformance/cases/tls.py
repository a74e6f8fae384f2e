"""STARTTLS (RFC 3207) and TLS from the first octet (RFC 8314); versions (RFC 8996)."""

from __future__ import annotations

import contextlib
import ssl
import warnings

from tests.conformance.case import CONNECTED, HELLO, RCPT, SHOULD, SIGNED_IN, TLS, Broken, case, expect, matches
from tests.conformance.client import Client, Closed, ProtocolError
from tests.conformance.server import CLIENT_NAME, Server, Tls, offered

_S = "STARTTLS"


def _in_clear(server: Server) -> Client:
    client = server.at(CONNECTED)
    matches(client.say(f"EHLO {CLIENT_NAME}"), "250")
    return client


@case("RFC3207-4", "STARTTLS is offered in clear", needs=_S)
def starttls_is_offered(server: Server) -> None:
    expect("STARTTLS" in server.offers_in_clear, f"EHLO offers {', '.join(server.offers_in_clear)}")
    expect(not server.offers_in_clear.get("STARTTLS"), "STARTTLS has parameters")


@case("RFC3207-4.2", "STARTTLS is not offered once TLS is on", needs=_S)
def starttls_is_not_offered_again(server: Server) -> None:
    expect("STARTTLS" not in server.offers, "it is offered again")


@case("RFC3207-4", "STARTTLS over TLS is refused", needs=_S)
def starttls_twice(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say("STARTTLS"), "503 5xx 454")
    matches(client.say("NOOP"), "250", "NOOP afterwards")


@case("RFC3207-4", "STARTTLS has no parameters: 501", needs=_S)
def starttls_with_argument(server: Server) -> None:
    client = _in_clear(server)
    matches(client.say("STARTTLS now"), "501 5xx")
    matches(client.say("NOOP"), "250", "NOOP afterwards")


@case(
    "RFC3207-4.2",
    "After the handshake all that was said before is forgotten: EHLO must come anew",
    needs=_S,
    level=SHOULD,
)
def the_session_begins_anew(server: Server) -> None:
    client = server.at(TLS)
    matches(client.say(f"MAIL FROM:<{server.sender}>"), "503 530 5xx")


@case("RFC3207-4", "There is no greeting after the handshake", needs=_S)
def no_greeting_after_the_handshake(server: Server) -> None:
    client = server.at(TLS)
    expect(client.quiet(0.3), "something is said after the handshake")
    offered(client.say(f"EHLO {CLIENT_NAME}"))


@case("RFC3207-6", "Commands put in behind STARTTLS in clear are not carried out after the handshake", needs=_S)
def injected_commands_are_dropped(server: Server) -> None:
    for injected in (b"NOOP\r\n", b"EHLO injected.example\r\n", b"RSET\r\nRSET\r\nQUIT\r\n", b"NOOP"):
        client = _in_clear(server)
        client.send(b"STARTTLS\r\n" + injected)
        try:
            matches(client.reply(), "220 5xx 421", "STARTTLS")
            client.start_tls(server.context(), server.name or server.host)
        except (OSError, Closed, ProtocolError):
            continue  # to break off is right, too
        client.send(f"EHLO {CLIENT_NAME}\r\nQUIT\r\n".encode())
        replies = client.until_closed()
        codes = [reply.code for reply in replies]
        expect(codes == [250, 221], f"{injected!r} behind STARTTLS: replies {codes}")
        expect(len(replies[0].lines) > 1, "EHLO after the handshake was not understood")


@case("RFC3207-6", "The end of a line put in before the handshake is not joined to what comes after", needs=_S)
def an_injected_beginning_is_dropped(server: Server) -> None:
    client = _in_clear(server)
    client.send(b"STARTTLS\r\nMAIL FROM:<x@y.example> ")
    try:
        matches(client.reply(), "220 5xx", "STARTTLS")
        client.start_tls(server.context(), server.name or server.host)
    except (OSError, Closed, ProtocolError):
        return
    offered(client.say(f"EHLO {CLIENT_NAME}"))


@case("RFC3207-4", "STARTTLS in a group is the last command of it: nothing behind it is answered in clear", needs=_S)
def nothing_behind_starttls_is_answered_in_clear(server: Server) -> None:
    client = _in_clear(server)
    client.send(b"STARTTLS\r\nNOOP\r\nNOOP\r\n")
    matches(client.reply(), "220 5xx 421", "STARTTLS")
    with contextlib.suppress(Closed, ProtocolError):
        if not client.quiet(0.3):
            raise Broken(f"in clear: {client.reply()}")


@case("RFC3207-4", "A handshake that fails ends the connection and nothing else", needs=_S)
def a_failed_handshake(server: Server) -> None:
    client = _in_clear(server)
    matches(client.say("STARTTLS"), "220")
    client.send(b"this is no handshake\r\n" * 20)
    client.finish()
    expect(client.closed() or True, "")  # what it says meanwhile is an alert of TLS, not a reply
    matches(server.at(HELLO).say("NOOP"), "250", "the next client")


@case("RFC6409-4.1", "In clear no transaction begins where TLS is needed to sign in", needs=_S)
def no_mail_in_clear(server: Server) -> None:
    if not server.user:
        return
    client = _in_clear(server)
    for line in (f"MAIL FROM:<{server.sender}>", f"RCPT TO:<{server.recipient}>", "DATA"):
        matches(client.say(line), "530 503 5xx", line)


@case("RFC3207-4", "The commands that must work before TLS do: NOOP, EHLO, QUIT", needs=_S)
def allowed_in_clear(server: Server) -> None:
    client = _in_clear(server)
    for line in ("NOOP", f"EHLO {CLIENT_NAME}", "NOOP"):
        matches(client.say(line), "250", line)
    matches(client.say("QUIT"), "221", "QUIT")


def _handshake(server: Server, version: ssl.TLSVersion) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    if server.tls is Tls.STARTTLS:
        client = _in_clear(server)
        matches(client.say("STARTTLS"), "220")
    else:
        client = Client(server.host, server.port, server.timeout)
    try:
        client.start_tls(context, server.name or server.host)
    except OSError:
        return ""
    else:
        return client.tls_version
    finally:
        client.close()


@case("RFC8996-1", "TLS 1.0 and 1.1 are not spoken")
def no_old_tls(server: Server) -> None:
    if server.tls is Tls.NONE:
        return
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        expect(not _handshake(server, version), f"it speaks {version.name}")


@case("RFC8314-4.1", "TLS 1.2 is spoken")
def tls_1_2(server: Server) -> None:
    if server.tls is not Tls.NONE:
        expect(_handshake(server, ssl.TLSVersion.TLSv1_2) == "TLSv1.2", "there is no handshake")


@case("RFC8314-4.1", "TLS 1.3 is spoken", level=SHOULD)
def tls_1_3(server: Server) -> None:
    if server.tls is not Tls.NONE:
        expect(_handshake(server, ssl.TLSVersion.TLSv1_3) == "TLSv1.3", "there is no handshake")


@case("RFC8314-3.3", "On the port for implicit TLS the greeting comes over TLS", needs="implicit TLS")
def implicit_tls(server: Server) -> None:
    client = server.connect(implicit=True)
    matches(client.reply(), "220")
    keywords = offered(client.say(f"EHLO {CLIENT_NAME}"))
    expect("STARTTLS" not in keywords, "STARTTLS is offered over TLS")


@case("RFC8314-3.3", "Over implicit TLS a message is taken as over STARTTLS", needs="implicit TLS")
def a_message_over_implicit_tls(server: Server) -> None:
    client = server.connect(implicit=True)
    matches(client.reply(), "220")
    matches(client.say(f"EHLO {CLIENT_NAME}"), "250")
    server.sign_in(client)
    server.transaction(client, RCPT)
    matches(client.say("DATA"), "354")
    client.send(server.message() + b".\r\n")
    matches(client.reply(), "250")


@case(
    "RFC8314-3.3",
    "A client that speaks in clear on that port gets nothing it could take for service",
    needs="implicit TLS",
)
def clear_text_on_the_tls_port(server: Server) -> None:
    client = Client(server.host, server.implicit_port or server.port, server.timeout)
    client.send(f"EHLO {CLIENT_NAME}\r\n".encode())
    try:
        reply = client.reply()
    except (Closed, ProtocolError):
        return
    finally:
        client.close()
    expect(not reply.positive, f"it answers {reply}")


@case("RFC8314-3.3", "The end of the connection is orderly: TLS is closed after QUIT", level=SHOULD)
def tls_is_closed_after_quit(server: Server) -> None:
    client = server.at(SIGNED_IN)
    matches(client.say("QUIT"), "221")
    expect(client.closed(), "the connection stays open")
