"""Command lines: what is taken from them, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.store.model import Notify, Return
from malote_relay.submission import commands, dsn
from malote_relay.submission.address import Mailbox
from malote_relay.submission.commands import CommandError

BOB = Mailbox("bob", "dest.example")


def refused(read: object, *arguments: object, **options: object) -> str:
    with pytest.raises(CommandError) as raised:
        read(*arguments, **options)  # type: ignore[operator]
    reply = raised.value.reply
    return f"{reply.code} {reply.enhanced} {reply.text}"


def test_mail_has_its_parameters_in_any_order_and_case() -> None:
    mail = commands.mail("FROM:<ana@acme.example> envid=Q1 smtputf8  Ret=full body=8bitmime SIZE=10 AUTH=<>")
    assert mail == commands.Mail(Mailbox("ana", "acme.example"), 10, True, Return.FULL, "Q1")


@pytest.mark.parametrize("parameter", ["SIZE=1", "BODY=7BIT", "SMTPUTF8", "RET=FULL", "ENVID=a", "AUTH=<>"])
def test_no_parameter_stands_twice(parameter: str) -> None:
    assert refused(commands.mail, f"FROM:<> {parameter} {parameter.lower()}").startswith("501 5.5.4")


@pytest.mark.parametrize(
    ("parameters", "notify", "orcpt"),
    [
        ("", None, ""),
        ("NOTIFY=never", Notify.NEVER, ""),
        ("NOTIFY=DELAY", Notify.DELAY, ""),
        ("notify=success,FAILURE,Delay", Notify.SUCCESS | Notify.FAILURE | Notify.DELAY, ""),
        ("ORCPT=rfc822;a+2Bb@c.example NOTIFY=FAILURE", Notify.FAILURE, "rfc822;a+2Bb@c.example"),
        ("ORCPT=utf-8;jos\\x{E9}@c.example", None, "utf-8;jos\\x{E9}@c.example"),
        ("ORCPT=utf-8;josé@c.example", None, "utf-8;jos\\x{E9}@c.example"),
        ("ORCPT=x400;whatever", None, "x400;whatever"),
    ],
)
def test_what_a_recipient_is_asked_for(parameters: str, notify: Notify | None, orcpt: str) -> None:
    assert commands.rcpt(f"TO:<bob@dest.example> {parameters}", smtputf8=True) == commands.Rcpt(BOB, notify, orcpt)


@pytest.mark.parametrize(
    "parameters",
    [
        "NOTIFY", "NOTIFY=", "NOTIFY=ALWAYS", "NOTIFY=NEVER,FAILURE", "NOTIFY=FAILURE,", "NOTIFY=,FAILURE",
        "NOTIFY=DELAY NOTIFY=DELAY", "ORCPT", "ORCPT=;a@b.c", "ORCPT=rfc822;", "ORCPT=a@b.c", "ORCPT=rfc822;a+b@c.d",
        "ORCPT=rfc822;a+2bb@c.d", "ORCPT=rfc822;a=b@c.d", "ORCPT=rfc822;a+0Ab@c.d", "ORCPT=rfc822;a+FFb@c.d",
        "ORCPT=rfc822;josé@c.d", "ORCPT=utf-8;josé@c.d", "ORCPT=utf-8;a\\b@c.d", "ORCPT=rfc822;" + "x" * 494,
        "ORCPT=rf,c;x",
    ],
)  # fmt: skip
def test_what_is_asked_for_wrongly_is_refused(parameters: str) -> None:
    assert refused(commands.rcpt, f"TO:<bob@dest.example> {parameters}", smtputf8=False).startswith("501 5.5.4")


def test_envid_and_orcpt_are_bounded_exactly() -> None:
    assert dsn.envid("x" * 100) == "x" * 100
    with pytest.raises(dsn.ParameterError):
        dsn.envid("x" * 101)
    assert len(dsn.orcpt("rfc822;" + "x" * 493, smtputf8=False)) == 500
    with pytest.raises(dsn.ParameterError):
        dsn.orcpt("utf-8;" + "é" * 200, smtputf8=True)


def test_postmaster_without_a_domain_goes_where_it_is_configured_to() -> None:
    assert refused(commands.rcpt, "TO:<Postmaster>", smtputf8=False).startswith("550 5.1.1")
    assert commands.rcpt("TO:<Postmaster>", smtputf8=False, postmaster=BOB).recipient == BOB


@pytest.mark.parametrize(
    ("argument", "chunk"), [("0", (0, False)), ("12 LAST", (12, True)), ("7  last", (7, True)), ("0 LAST", (0, True))]
)
def test_a_chunk_says_its_size_and_whether_it_is_the_last(argument: str, chunk: tuple[int, bool]) -> None:
    assert commands.bdat(argument) == chunk


@pytest.mark.parametrize("argument", ["", "x", "-1", "+1", "1.0", "0x10", "LAST", "1 LASTLY", "1 LAST x", "١"])
def test_a_chunk_without_a_size_is_refused(argument: str) -> None:
    assert refused(commands.bdat, argument).startswith("501 5.5.4")


@given(st.text(max_size=60), st.sampled_from(["", "<a@b.cd> ", "<a@b.cd> NOTIFY=", "<a@b.cd> ORCPT=utf-8;"]))
def test_every_argument_is_read_or_refused(text: str, start: str) -> None:
    codes: list[int] = []
    for prefix, read in (("TO:", lambda argument: commands.rcpt(argument, smtputf8=True)), ("FROM:", commands.mail)):
        try:
            read(f"{prefix}{start}{text}")
        except CommandError as refusal:
            codes.append(refusal.reply.code)
    assert all(code >= 500 for code in codes)
    try:
        kept = dsn.orcpt(f"utf-8;{text}", smtputf8=True)
    except dsn.ParameterError:
        return
    assert kept.isascii()
    assert " " not in kept
    assert dsn.orcpt(kept, smtputf8=False) == kept
