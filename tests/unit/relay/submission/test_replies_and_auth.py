"""Replies on the wire, and signing in."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from malote_relay import passwords
from malote_relay.config import Account
from malote_relay.submission import auth, replies
from malote_relay.submission.replies import Reply

LINE = re.compile(rb"\d{3}[ -]\d\.\d\.\d [\x20-\x7e]*\r\n")


@given(st.text(max_size=2000))
def test_no_words_can_break_out_of_a_reply(text: str) -> None:
    octets = Reply(550, "5.1.0", text or "x").wire()
    lines = octets.splitlines(keepends=True)
    assert all(LINE.fullmatch(line) and len(line) <= 512 for line in lines)
    assert [line[3:4] for line in lines] == [b"-"] * (len(lines) - 1) + [b" "]


def test_every_reply_has_an_enhanced_status_code_of_its_class() -> None:
    without = {replies.GO_AHEAD}  # RFC 2034 section 4: 3yz replies have none
    for reply in vars(replies).values():
        if isinstance(reply, Reply) and reply not in without:
            assert reply.enhanced.startswith(f"{reply.code // 100}."), reply


def test_plain_needs_user_and_password_and_acts_for_nobody_else() -> None:
    assert auth.plain(b"\0app\0secret") == ("app", "secret")
    assert auth.plain(b"app\0app\0secret") == ("app", "secret")
    for bad in (b"", b"app", b"other\0app\0secret", b"\0\0secret", b"\0app\0se\0cret", b"\0\xff\0x"):
        assert auth.plain(bad) is None


def test_only_the_right_password_opens_an_account() -> None:
    app = Account(name="app", username="app@acme", verifier=passwords.verifier("secret"))
    accounts = {app.username: app}
    assert auth.account(accounts, "app@acme", "secret") is app
    assert auth.account(accounts, "app@acme", "Secret") is None
    assert auth.account(accounts, "nobody@acme", "secret") is None
    assert auth.account(accounts, "nobody@acme", "nobody") is None
