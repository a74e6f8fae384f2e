"""AUTH with PLAIN and LOGIN (RFC 4954, RFC 4616, draft-murchison-sasl-login; RFC 6409 section 4.3)."""

from __future__ import annotations

import base64
import time

from tests.conformance.case import (
    CONNECTED,
    HELLO,
    MAIL,
    SHOULD,
    SIGNED_IN,
    TLS,
    Broken,
    case,
    exchange,
    expect,
    matches,
)
from tests.conformance.client import Client, Closed
from tests.conformance.server import CLIENT_NAME, Server, Tls, encoded, token

PLAIN, LOGIN = "AUTH PLAIN", "AUTH LOGIN"


def _still_signed_out(server: Server, client: Client) -> None:
    matches(client.say("NOOP"), "250", "NOOP afterwards")
    if client.say(f"MAIL FROM:<{server.sender}>").positive:  # some say it at the recipient only, to log who that was
        matches(client.say(f"RCPT TO:<{server.recipient}>"), "530 5xx", "RCPT without AUTH")
        matches(client.say("DATA"), "5xx", "DATA without AUTH")


@case("RFC4954-4", "PLAIN with an initial response signs in", needs=PLAIN)
def plain_with_initial_response(server: Server) -> None:
    matches(server.at(HELLO).say(f"AUTH PLAIN {server.plain()}"), "235")


@case("RFC4954-4", "PLAIN without an initial response is asked for it by an empty challenge", needs=PLAIN)
def plain_without_initial_response(server: Server) -> None:
    client = server.at(HELLO)
    challenge = matches(client.say("AUTH PLAIN"), "334")
    expect(challenge.lines == ("",), f"the challenge is {challenge}")
    matches(client.say(server.plain()), "235")


@case("RFC4954-4", "The mechanism's name is compared without regard to case", needs=PLAIN)
def the_mechanism_in_lower_case(server: Server) -> None:
    matches(server.at(HELLO).say(f"auth plain {server.plain()}"), "235")


@case("RFC4616-2", "PLAIN may name the user to act for, when that is the user itself", needs=PLAIN)
def plain_acting_for_oneself(server: Server) -> None:
    response = encoded(f"{server.user}\0{server.user}\0{server.password}")
    matches(server.at(HELLO).say(f"AUTH PLAIN {response}"), "235")


@case("RFC4616-2", "PLAIN to act for somebody else is refused", needs=PLAIN, guesses=True)
def plain_acting_for_others(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say(f"AUTH PLAIN {encoded(f'root{chr(0)}{server.user}{chr(0)}{server.password}')}"), "535 5xx 501")
    _still_signed_out(server, client)


@case("RFC4954-4", "LOGIN asks for name and password in turn", needs=LOGIN)
def login(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say("AUTH LOGIN"), "334")
    matches(client.say(encoded(server.user)), "334")
    matches(client.say(encoded(server.password)), "235")


@case("RFC4954-4", "LOGIN with the name as initial response asks for the password only", needs=LOGIN)
def login_with_initial_response(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say(f"AUTH LOGIN {encoded(server.user)}"), "334")
    matches(client.say(encoded(server.password)), "235")


@case("RFC4954-4", "The challenges of LOGIN are base64", needs=LOGIN)
def challenges_are_base64(server: Server) -> None:
    client = server.at(HELLO)
    first = matches(client.say("AUTH LOGIN"), "334")
    base64.b64decode(first.lines[0], validate=True)
    client.say("*")


@case("RFC4954-4", "A client that answers * gives up: 501", needs=PLAIN)
def cancelled_plain(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say("AUTH PLAIN"), "334")
    matches(client.say("*"), "501")
    matches(client.say(f"AUTH PLAIN {server.plain()}"), "235", "a second try")


@case("RFC4954-4", "LOGIN may be given up at the password, too", needs=LOGIN)
def cancelled_login(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say("AUTH LOGIN"), "334")
    matches(client.say(encoded(server.user)), "334")
    matches(client.say("*"), "501")
    _still_signed_out(server, client)


exchange(
    "RFC4954-4",
    "initial-response-not-base64",
    "An initial response that is not base64 is refused with 501",
    HELLO,
    "AUTH PLAIN ###",
    "501 535 5xx",
    needs=PLAIN,
    guesses=True,
)
exchange(
    "RFC4954-4",
    "unknown-mechanism",
    "A mechanism that is not offered is refused with 504",
    HELLO,
    "AUTH X-UNKNOWN",
    "504 535 5xx",
    needs="AUTH",
    guesses=True,
)
exchange("RFC4954-4", "auth-without-mechanism", "AUTH needs a mechanism", HELLO, "AUTH", "501 5xx", needs="AUTH")
exchange(
    "RFC4954-4",
    "too-many-arguments",
    "There is one initial response",
    HELLO,
    "AUTH PLAIN YQ== YQ==",
    "501 5xx",
    needs=PLAIN,
    guesses=True,
)


@case("RFC4954-4", "A response that is not base64 is refused with 501", needs=PLAIN, guesses=True)
def a_response_not_base64(server: Server) -> None:
    for response in ("not base64!", "YQ=", "=YQ=", "Y Q=="):
        client = server.at(HELLO)
        matches(client.say("AUTH PLAIN"), "334")
        matches(client.say(response), "501 535 5xx", response)


@case("RFC4954-4", "= as initial response is an empty one", needs=PLAIN, guesses=True)
def an_empty_initial_response(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say("AUTH PLAIN ="), "535 501 5xx")
    _still_signed_out(server, client)


@case("RFC4954-6", "A wrong password is refused with 535, and nobody is signed in", needs=PLAIN, guesses=True)
def a_wrong_password(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say(f"AUTH PLAIN {encoded(f'{chr(0)}{server.user}{chr(0)}{token()}')}"), "535")
    _still_signed_out(server, client)


@case("RFC4954-6", "An empty password is refused with 535", needs=PLAIN, guesses=True)
def an_empty_password(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say(f"AUTH PLAIN {encoded(f'{chr(0)}{server.user}{chr(0)}')}"), "535 501 5xx")
    _still_signed_out(server, client)


@case("RFC4954-9", "A user who does not exist gets the same words as a wrong password", needs=PLAIN, guesses=True)
def no_oracle_for_names(server: Server) -> None:
    answers = []
    for name in (server.user, f"nobody-{token()}"):
        reply = server.at(HELLO).say(f"AUTH PLAIN {encoded(f'{chr(0)}{name}{chr(0)}{token()}')}")
        answers.append(str(reply).replace(name, "NAME"))
    expect(answers[0] == answers[1], f"{answers[0]!r} and {answers[1]!r}")


@case(
    "RFC4954-6", "A wrong password by LOGIN is refused with 535 only after both were given", needs=LOGIN, guesses=True
)
def a_wrong_password_by_login(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say("AUTH LOGIN"), "334")
    matches(client.say(encoded(f"nobody-{token()}")), "334", "an unknown name")
    matches(client.say(encoded(token())), "535")
    _still_signed_out(server, client)


@case("RFC4954-4", "AUTH after AUTH is refused with 503", needs=PLAIN)
def auth_twice(server: Server) -> None:
    client = server.at(SIGNED_IN)
    matches(client.say(f"AUTH PLAIN {server.plain()}"), "503")
    matches(client.say(f"MAIL FROM:<{server.sender}>"), "250", "MAIL afterwards")


@case("RFC4954-4", "AUTH in a transaction is refused with 503", needs=PLAIN)
def auth_in_a_transaction(server: Server) -> None:
    client = server.at(MAIL)
    matches(client.say(f"AUTH PLAIN {server.plain()}"), "503")
    matches(client.say(f"RCPT TO:<{server.recipient}>"), "250", "RCPT afterwards")


@case("RFC4954-3", "AUTH is offered after EHLO only: before, it is out of order", needs=PLAIN, level=SHOULD)
def auth_before_ehlo(server: Server) -> None:
    client = server.at(TLS)
    matches(client.say(f"AUTH PLAIN {server.plain()}"), "503 5xx")


@case("RFC6409-4.3", "Without AUTH no message is taken", needs="AUTH")
def mail_without_auth(server: Server) -> None:
    client = server.at(HELLO)
    _still_signed_out(server, client)


@case("RFC4954-6", "MAIL without AUTH is refused with 530", needs="AUTH", level=SHOULD)
def mail_without_auth_is_530(server: Server) -> None:
    matches(server.at(HELLO).say(f"MAIL FROM:<{server.sender}>"), "530")


@case("RFC6409-4.3", "RCPT and DATA without AUTH are refused, too", needs="AUTH")
def rcpt_and_data_without_auth(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say(f"RCPT TO:<{server.recipient}>"), "503 530 5xx")
    matches(client.say("DATA"), "503 530 5xx")


@case("RFC4954-5", "The parameter AUTH= of MAIL is taken", needs="AUTH")
def the_auth_parameter_of_mail(server: Server) -> None:
    client = server.at(SIGNED_IN)
    matches(client.say(f"MAIL FROM:<{server.sender}> AUTH=<>"), "250")
    matches(client.say("RSET"), "250")
    matches(client.say(f"MAIL FROM:<{server.sender}> AUTH=someone+3Dx@example.com"), "250", "with xtext")


@case("RFC4954-4", "A password in clear is not asked for without TLS (section 9)", needs="AUTH")
def no_plain_without_tls(server: Server) -> None:
    if server.tls is not Tls.STARTTLS:
        return
    expect(
        "AUTH" not in server.offers_in_clear or "PLAIN" not in server.offers_in_clear["AUTH"].split(),
        "PLAIN is offered in clear",
    )
    client = server.at(CONNECTED)
    matches(client.say(f"EHLO {CLIENT_NAME}"), "250")
    matches(client.say("AUTH PLAIN AGEAYg=="), "530 538 5xx")
    matches(client.say("AUTH LOGIN"), "530 538 5xx", "LOGIN")


@case("RFC4954-4", "A response of 12,288 octets is read as one line", needs=PLAIN, guesses=True)
def a_long_response(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say("AUTH PLAIN"), "334")
    matches(client.say("QUFB" * 3000), "535 500 501 5xx")
    matches(client.say("NOOP"), "250", "NOOP afterwards")


@case("RFC4954-4", "A response without an end is refused, or the connection closed", needs=PLAIN, guesses=True)
def a_response_without_end(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say("AUTH PLAIN"), "334")
    try:
        reply = client.say("QUFB" * 50_000)
    except Closed:
        return
    matches(reply, "5xx 421")


@case("RFC4954-4", "A client that disconnects at a challenge leaves the server as it was", needs=PLAIN)
def disconnect_at_a_challenge(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say("AUTH PLAIN"), "334")
    client.close()
    matches(server.at(HELLO).say("NOOP"), "250", "the next client")


@case("RFC4954-4", "A command where a response is due is a bad response, not a command", needs=PLAIN, guesses=True)
def a_command_for_a_response(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say("AUTH PLAIN"), "334")
    reply = client.say(f"MAIL FROM:<{server.sender}>")
    matches(reply, "5xx")
    _still_signed_out(server, client)


@case("RFC4954-9", "Guessing ends the session, or is slowed", needs=PLAIN, guesses=True, level=SHOULD)
def guessing_ends(server: Server) -> None:
    client = server.at(HELLO)
    begun = time.monotonic()
    for _ in range(12):
        try:
            reply = client.say(f"AUTH PLAIN {encoded(f'{chr(0)}nobody-{token()}{chr(0)}x')}", timeout=60)
        except Closed:
            return
        if reply.code == 421:
            return
        if time.monotonic() - begun > 5:
            return
    raise Broken("twelve guesses in less than 5 s")


@case("RFC4954-6", "After a failed AUTH a right one signs in", needs=PLAIN, guesses=True)
def a_right_one_after_a_wrong_one(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say(f"AUTH PLAIN {encoded(f'{chr(0)}nobody-{token()}{chr(0)}x')}"), "535")
    matches(client.say(f"AUTH PLAIN {server.plain()}"), "235")
    matches(client.say(f"MAIL FROM:<{server.sender}>"), "250", "MAIL")
