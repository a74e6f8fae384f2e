"""DSN: the parameters by which a sender asks what became of a message (RFC 3461)."""

from __future__ import annotations

from tests.conformance.case import MAIL, MUST, SHOULD, SIGNED_IN, Level, case, exchange, expect, matches
from tests.conformance.server import Server, token

_D = "DSN"


def _mail(
    name: str, why: str, parameters: str, codes: str, level: Level = MUST, section: str = "RFC3461-4.3"
) -> None:
    exchange(section, name, why, SIGNED_IN, f"MAIL FROM:<{{sender}}> {parameters}", codes, needs=_D, level=level)


def _rcpt(
    name: str, why: str, parameters: str, codes: str, level: Level = MUST, section: str = "RFC3461-4.1"
) -> None:
    exchange(section, name, why, MAIL, f"RCPT TO:<{{recipient}}> {parameters}", codes, needs=_D, level=level)


_mail("ret-full", "RET=FULL is taken", "RET=FULL", "250")
_mail("ret-hdrs", "RET=HDRS is taken", "RET=HDRS", "250")
_mail("ret-in-lower-case", "RET's value is compared without regard to case", "ret=hdrs", "250")
_mail("ret-unknown", "RET is FULL or HDRS", "RET=SOME", "501 5xx")
_mail("ret-without-value", "RET needs a value", "RET", "501 5xx")
_mail("ret-twice", "RET stands once", "RET=FULL RET=HDRS", "501 5xx")
_mail("envid", "ENVID is taken", "ENVID=abc123", "250", section="RFC3461-4.4")
_mail("envid-xtext", "ENVID is xtext: +3D is an equals sign", "ENVID=a+3Db+2Bc", "250", section="RFC3461-4.4")
_mail(
    "envid-bad-xtext",
    "A + that two hexadecimal digits do not follow is no xtext",
    "ENVID=a+b",
    "501 5xx",
    section="RFC3461-4.4",
)
_mail(
    "envid-lower-hexadecimal",
    "The digits of xtext are in capitals",
    "ENVID=a+3d",
    "501 5xx 250",
    level=SHOULD,
    section="RFC3461-4",
)
_mail("envid-empty", "ENVID needs a value", "ENVID=", "501 5xx", section="RFC3461-4.4")
_mail("envid-twice", "ENVID stands once", "ENVID=a ENVID=b", "501 5xx", section="RFC3461-4.4")
_mail("envid-too-long", "ENVID has at most 100 characters", f"ENVID={'e' * 101}", "501 5xx", SHOULD, "RFC3461-4.4")
_mail("envid-of-100", "ENVID of 100 characters is taken", f"ENVID={'e' * 100}", "250", MUST, "RFC3461-5.4")
_mail("ret-and-envid", "RET, ENVID, SIZE and BODY go together", "RET=HDRS ENVID=x SIZE=100 BODY=8BITMIME", "250")
exchange(
    "RFC3461-4.3",
    "ret-in-rcpt",
    "RET is no parameter of RCPT",
    MAIL,
    "RCPT TO:<{recipient}> RET=FULL",
    "5xx",
    needs=_D,
)
exchange(
    "RFC3461-4.1",
    "notify-in-mail",
    "NOTIFY is no parameter of MAIL",
    SIGNED_IN,
    "MAIL FROM:<{sender}> NOTIFY=NEVER",
    "5xx",
    needs=_D,
)

_rcpt("notify-never", "NOTIFY=NEVER is taken", "NOTIFY=NEVER", "250")
_rcpt("notify-success", "NOTIFY=SUCCESS is taken", "NOTIFY=SUCCESS", "250")
_rcpt("notify-all", "NOTIFY is a list", "NOTIFY=SUCCESS,FAILURE,DELAY", "250")
_rcpt(
    "notify-in-lower-case", "The values of NOTIFY are compared without regard to case", "notify=failure,Delay", "250"
)
_rcpt("notify-never-and-more", "NEVER stands alone", "NOTIFY=NEVER,SUCCESS", "501 5xx")
_rcpt("notify-unknown", "Other values are refused", "NOTIFY=SOMETIMES", "501 5xx")
_rcpt("notify-empty", "NOTIFY needs a value", "NOTIFY=", "501 5xx")
_rcpt("notify-without-value", "NOTIFY without = is refused", "NOTIFY", "501 5xx")
_rcpt("notify-trailing-comma", "A list does not end in a comma", "NOTIFY=SUCCESS,", "501 5xx", SHOULD)
_rcpt("notify-twice", "NOTIFY stands once", "NOTIFY=DELAY NOTIFY=FAILURE", "501 5xx")
_rcpt("orcpt", "ORCPT is taken", "ORCPT=rfc822;bob@example.com", "250", section="RFC3461-4.2")
_rcpt("orcpt-xtext", "ORCPT's address is xtext", "ORCPT=rfc822;bob+2Bx@example.com", "250", section="RFC3461-4.2")
_rcpt(
    "orcpt-other-type", "ORCPT may be of another address type", "ORCPT=x400;/C=US/", "250 501", section="RFC3461-4.2"
)
_rcpt("orcpt-without-type", "ORCPT has a type", "ORCPT=bob@example.com", "501 5xx", section="RFC3461-4.2")
_rcpt("orcpt-empty", "ORCPT needs a value", "ORCPT=", "501 5xx", section="RFC3461-4.2")
_rcpt(
    "orcpt-bad-xtext",
    "ORCPT's address is xtext: + begins two digits",
    "ORCPT=rfc822;bob+zz@example.com",
    "501 5xx",
    section="RFC3461-4.2",
)
_rcpt("orcpt-twice", "ORCPT stands once", "ORCPT=rfc822;a@b.c ORCPT=rfc822;d@e.f", "501 5xx", section="RFC3461-4.2")
_rcpt("notify-and-orcpt", "NOTIFY and ORCPT go together", "NOTIFY=FAILURE ORCPT=rfc822;bob@example.com", "250")
exchange(
    "RFC6533-3",
    "orcpt-utf-8",
    "ORCPT of type utf-8 is taken with SMTPUTF8",
    MAIL,
    "RCPT TO:<{recipient}> ORCPT=utf-8;jos\\x{E9}@example.com",
    "250",
    needs=_D,
    mail="SMTPUTF8",
    level=SHOULD,
)


@case("RFC3461-4.1", "Each recipient has a NOTIFY of its own", needs=_D)
def each_recipient_has_its_own(server: Server) -> None:
    client = server.at(MAIL, mail="RET=HDRS ENVID=each")
    for recipient, notify in zip(server.others(3), ("NEVER", "SUCCESS", "FAILURE,DELAY"), strict=True):
        matches(client.say(f"RCPT TO:<{recipient}> NOTIFY={notify}"), "250", notify)


@case("RFC3461-4.1", "A message with all the parameters is taken", needs=_D)
def a_message_with_all_parameters(server: Server) -> None:
    client = server.at(MAIL, mail="RET=HDRS ENVID=all+2D1")
    line = f"RCPT TO:<{server.recipient}> NOTIFY=FAILURE,DELAY ORCPT=rfc822;{server.recipient}"
    matches(client.say(line), "250")
    matches(client.say("DATA"), "354")
    client.send(server.message() + b".\r\n")
    matches(client.reply(), "250")


@case("RFC3461-5.2.1", "A recipient refused for a bad parameter is no recipient", needs=_D)
def a_bad_parameter_adds_nobody(server: Server) -> None:
    client = server.at(MAIL)
    matches(client.say(f"RCPT TO:<{server.recipient}> NOTIFY=NEVER,DELAY"), "5xx")
    matches(client.say("DATA"), "503 554")


@case("RFC3461-5.2.3", "NOTIFY=NEVER with the null sender is taken", needs=_D)
def never_with_the_null_sender(server: Server) -> None:
    client = server.at(SIGNED_IN)
    matches(client.say("MAIL FROM:<>"), "250")
    matches(client.say(f"RCPT TO:<{server.recipient}> NOTIFY=NEVER"), "250")


@case("RFC3461-4", "The parameters do not get into the message", needs=_D, sees=True)
def parameters_stay_out_of_the_message(server: Server) -> None:
    word, envid = token(), token()
    arrived = server.relayed(server.message(token=word), word, mail=f"ENVID={envid}")
    expect(envid.encode() not in arrived.content, "ENVID stands in the message")
