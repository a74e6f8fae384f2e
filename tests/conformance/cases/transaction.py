"""The order of commands (RFC 5321 sections 3.3 and 4.1.4), and what a message's acceptance means (6.1)."""

from __future__ import annotations

from tests.conformance.case import (
    DATA,
    HELLO,
    MAIL,
    MUST,
    RCPT,
    SHOULD,
    SIGNED_IN,
    case,
    exchange,
    expect,
    matches,
)
from tests.conformance.server import Server, token

exchange(
    "RFC5321-4.1.1.2", "mail", "MAIL with a sender begins a transaction", SIGNED_IN, "MAIL FROM:<{sender}>", "250"
)
exchange(
    "RFC5321-4.5.5",
    "null-sender",
    "The null reverse-path is taken: notices and auto-replies have it",
    SIGNED_IN,
    "MAIL FROM:<>",
    "250",
)
exchange(
    "RFC5321-4.1.4", "mail-in-a-transaction", "A second MAIL is out of order", MAIL, "MAIL FROM:<{sender}>", "503"
)
exchange("RFC5321-4.1.4", "mail-after-rcpt", "MAIL after RCPT is out of order", RCPT, "MAIL FROM:<{sender}>", "503")
exchange(
    "RFC5321-4.1.1.3",
    "rcpt-without-mail",
    "RCPT without MAIL is out of order",
    SIGNED_IN,
    "RCPT TO:<{recipient}>",
    "503",
)
exchange("RFC5321-4.1.1.4", "data-without-mail", "DATA without MAIL is out of order", SIGNED_IN, "DATA", "503")
exchange(
    "RFC5321-3.3", "data-without-rcpt", "DATA without a recipient is refused (503 or 554)", MAIL, "DATA", "503 554"
)
exchange("RFC5321-4.1.1.3", "rcpt", "RCPT with a recipient is accepted", MAIL, "RCPT TO:<{recipient}>", "250 251")
exchange("RFC5321-4.1.1.4", "data", "DATA asks for the content", RCPT, "DATA", "354", usable=False)
exchange(
    "RFC5321-2.4",
    "keywords-in-lower-case",
    "mail from: in lower case is MAIL FROM:",
    SIGNED_IN,
    "mail from:<{sender}>",
    "250",
)
exchange(
    "RFC5321-2.4", "rcpt-in-lower-case", "rcpt to: in lower case is RCPT TO:", MAIL, "rcpt to:<{recipient}>", "250"
)


@case("RFC5321-4.1.4", "A MAIL out of order leaves the transaction as it was")
def a_second_mail_keeps_the_first(server: Server) -> None:
    client = server.at(RCPT)
    matches(client.say("MAIL FROM:<>"), "503")
    matches(client.say("DATA"), "354")


@case("RFC5321-3.3", "A recipient that is refused does not spoil those that were accepted")
def a_refused_recipient_spoils_nothing(server: Server) -> None:
    client = server.at(RCPT)
    matches(client.say("RCPT TO:<>"), "5xx", "an empty forward-path")
    matches(client.say("RCPT TO:<not an address>"), "5xx", "what is no address")
    matches(client.say("DATA"), "354")


@case("RFC5321-3.3", "When every recipient was refused, DATA is refused, too")
def data_after_only_refused_recipients(server: Server) -> None:
    client = server.at(MAIL)
    matches(client.say("RCPT TO:<not an address>"), "5xx")
    matches(client.say("DATA"), "503 554")


@case("RFC5321-4.1.1.2", "A refused MAIL begins no transaction")
def a_refused_mail_begins_nothing(server: Server) -> None:
    client = server.at(SIGNED_IN)
    matches(client.say("MAIL FROM:<not an address>"), "5xx")
    matches(client.say(f"RCPT TO:<{server.recipient}>"), "503")
    matches(client.say(f"MAIL FROM:<{server.sender}>"), "250", "a right MAIL afterwards")


@case("RFC5321-4.1.1.4", "After the message the session is ready for another one, without EHLO or AUTH")
def several_messages_in_a_session(server: Server) -> None:
    client = server.at(DATA)
    for number in range(3):
        if number:
            server.transaction(client)
        client.send(server.message() + b".\r\n")
        matches(client.reply(), "250", f"message {number + 1}")


@case("RFC5321-4.1.1.4", "The end of the data ends the transaction: its recipients are gone")
def the_end_of_data_ends_the_transaction(server: Server) -> None:
    client = server.at(DATA)
    client.send(server.message() + b".\r\n")
    matches(client.reply(), "250")
    matches(client.say("DATA"), "503 554", "DATA once more")


@case("RFC5321-4.1.1.4", "A message that is refused ends its transaction, and the session goes on")
def a_refused_message_ends_the_transaction(server: Server) -> None:
    client = server.at(DATA)
    client.send(b"From: a@b.example\r\nFrom: c@d.example\r\n\r\nx\r\n.\r\n")
    reply = client.reply()
    expect(reply.code in {250} or reply.refused, f"it is answered with {reply}")
    matches(client.say("DATA"), "503 554", "DATA once more")
    matches(client.say(f"MAIL FROM:<{server.sender}>"), "250", "the next MAIL")


@case("RFC5321-6.1", "What was answered with 250 arrives", sees=True)
def what_is_accepted_arrives(server: Server) -> None:
    word = token()
    arrived = server.relayed(server.message(f"to see: {word}", token=word), word)
    expect(f"to see: {word}\r\n".encode() in arrived.body, f"the body is {arrived.body[:200]!r}")


@case("RFC5321-6.1", "A connection that ends before the end of the data leaves no message behind", sees=True)
def an_unfinished_message_does_not_arrive(server: Server) -> None:
    half, whole = token(), token()
    client = server.at(DATA)
    client.send(server.message(token=half))
    client.close()
    server.relayed(server.message(token=whole), whole)  # it would have come before this one
    found = [one for one in server.delivered.messages() if half.encode() in one.content] if server.delivered else []
    expect(not found, "it arrived")


@case("RFC5321-4.1.1.3", "Every recipient that was accepted gets the message", sees=True)
def every_recipient_gets_it(server: Server) -> None:
    word = token()
    others = tuple(server.others(3))
    server.relayed(server.message(token=word), word, to=others)
    arrived = server.arrives(word)
    known = [one.recipients for one in arrived]
    if None not in known:
        seen = sorted(address for found in known for address in found or ())
        expect(seen == sorted(others), f"it arrived for {seen}")


@case("RFC5321-4.4", "The reverse-path that arrives is the one of MAIL", sees=True)
def the_reverse_path_is_passed_on(server: Server) -> None:
    word = token()
    arrived = server.relayed(server.message(token=word), word)
    found = arrived.sender
    expect(found is None or found.lower() == server.sender.lower(), f"the reverse-path is {found!r}")


@case("RFC5321-4.5.5", "A message with the null reverse-path arrives with it", sees=True)
def the_null_reverse_path_is_passed_on(server: Server) -> None:
    word = token()
    client = server.at(SIGNED_IN)
    matches(client.say("MAIL FROM:<>"), "250")
    matches(client.say(f"RCPT TO:<{server.recipient}>"), "250")
    matches(client.say("DATA"), "354")
    client.send(server.message(token=word) + b".\r\n")
    matches(client.reply(), "250", "the end of the data")
    [arrived] = server.arrives(word)
    expect(arrived.sender in {None, ""}, f"the reverse-path is {arrived.sender!r}")


@case("RFC5321-4.1.1.4", "The positive reply comes only after the end of the data, not before", level=MUST)
def no_reply_before_the_end(server: Server) -> None:
    client = server.at(DATA)
    client.send(server.message())
    expect(client.quiet(0.5), "something was said before the end")
    client.send(b".\r\n")
    matches(client.reply(), "250")


@case("RFC5321-4.1.1.3", "The same recipient given twice is accepted twice", level=SHOULD)
def a_recipient_twice(server: Server) -> None:
    client = server.at(RCPT)
    matches(client.say(f"RCPT TO:<{server.recipient}>"), "250 251")
    matches(client.say("DATA"), "354")


exchange(
    "RFC5321-4.1.4", "helo-ends-nothing-secure", "HELO after EHLO is answered", HELLO, "HELO client.example", "250"
)
