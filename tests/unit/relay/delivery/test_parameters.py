from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.delivery.parameters import (
    from_utf8_xtext,
    from_xtext,
    mail_parameters,
    rcpt_parameters,
    to_utf8_xtext,
    to_xtext,
)
from malote_relay.store.model import NO_DSN, DsnRequest, Notify, Return


def test_who_asked_for_nothing_has_only_the_recipient_named() -> None:
    assert mail_parameters(NO_DSN) == ""
    assert rcpt_parameters(NO_DSN, "b+ia@shop.example") == " ORCPT=rfc822;b+2Bia@shop.example"


@pytest.mark.parametrize(
    ("notify", "words"),
    [
        (Notify.NEVER, "NEVER"),
        (Notify.SUCCESS | Notify.FAILURE, "SUCCESS,FAILURE"),
        (Notify.DELAY, "DELAY"),
        (Notify.DEFAULT, "FAILURE,DELAY"),
    ],
)
def test_what_was_asked_for_is_passed_on_as_it_came(notify: Notify, words: str) -> None:
    dsn = DsnRequest(notify, asked=True, orcpt="rfc822;old+2B@x.example", envid="QQ+3D1", ret=Return.HEADERS)
    assert mail_parameters(dsn) == " RET=HDRS ENVID=QQ+3D1"
    assert rcpt_parameters(dsn, "bia@shop.example") == f" NOTIFY={words} ORCPT=rfc822;old+2B@x.example"


def test_a_recipient_outside_ascii_is_named_in_a_form_for_any_path() -> None:
    assert rcpt_parameters(NO_DSN, "josé@shop.example") == " ORCPT=utf-8;jos\\x{E9}@shop.example"


@given(st.text(st.characters(max_codepoint=127)))
def test_xtext_comes_back(text: str) -> None:
    there = to_xtext(text)
    assert from_xtext(there) == text
    assert all("!" <= c <= "~" and c != "=" for c in there)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_address_comes_back_from_its_ascii_form(text: str) -> None:
    there = to_utf8_xtext(text)
    assert there.isascii()
    assert " " not in there
    assert from_utf8_xtext(there) == text


@pytest.mark.parametrize("text", ["+", "+G0", "\\x{110000}", "\\x{D800}", "\\x{}"])
def test_what_stands_for_nothing_stays(text: str) -> None:
    assert from_xtext(text) == from_utf8_xtext(text) == text
