"""`malote-relayctl` about the suppression list and paused accounts, against a running relay."""

from __future__ import annotations

import time
from typing import Any


async def test_the_list_is_shown_and_changed(relay: Any, ctl: Any) -> None:
    suppressions = relay.relay.suppressions
    suppressions.bounced("gone@dest.example", "bad-mailbox", "550 5.1.1 no such user", time.time(), "m1")
    await suppressions.flush()
    code, out, _ = await ctl("suppress", "Eva@dest.example", "--days", "7", "--note", "asked by phone")
    assert (code, out.split(None, 1)[1].strip()) == (0, "mail to Eva@dest.example is refused for 7 days")
    eva, gone = await ctl.rows("suppressions")
    assert (gone["address"], gone["reason"], gone["bounceClass"], gone["detail"], gone["message"]) == (
        "gone@dest.example", "bounce", "bad-mailbox", "550 5.1.1 no such user", "m1",
    )  # fmt: skip
    assert (eva["address"], eva["reason"], eva["detail"]) == ("eva@dest.example", "manual", "asked by phone")
    assert 6.9 < (eva["until"] - time.time()) / 86_400 < 7.1
    assert await ctl.rows("suppressions", "--reason", "bounce") == [gone]
    assert await ctl.rows("suppressions", "--text", "eva@") == [eva]
    assert "asked by phone" in await relay.rcpt("eva@dest.example")
    for address in ("eva@dest.example", "gone@dest.example"):
        assert (await ctl("unsuppress", address))[0] == 0
        assert (await relay.rcpt(address)).startswith("250 ")
    code, _, errors = await ctl("unsuppress", "eva@dest.example")
    assert code != 0
    assert "eva@dest.example is not on the suppression list" in errors
    code, _, errors = await ctl("suppress", "eva")
    assert code != 0
    assert "this is no mail address: 'eva' is not of the form user@domain" in errors


async def test_while_nobody_is_refused_it_does_not_say_that_somebody_is(start: Any, site: Any, ctl: Any) -> None:
    site.change(suppression={"enabled": False})
    relay = await start()
    code, out, _ = await ctl("suppress", "eva@dest.example")
    assert code == 0
    assert "eva@dest.example is on the list for good, but nobody is refused: suppression.enabled is false" in out
    assert (await relay.rcpt("eva@dest.example")).startswith("250 ")


async def test_a_paused_account_is_shown_and_resumed(start: Any, site: Any, ctl: Any) -> None:
    site.change(account_pause={"min_recipients": 4, "min_complaints": 1})
    relay = await start()
    pauses, now = relay.relay.pauses, relay.relay._clock.now()
    for _ in range(4):
        pauses._window("app").count(now, delivered=1)
    pauses.complained("app", now)
    app, news, _ = await ctl.rows("accounts")
    assert (app["account"], app["state"], app["delivered"], app["complained"]) == ("app", "paused", 4, 1)
    assert "1 of 4 recipients within 24 hours complained" in app["reason"]
    assert (news["account"], news["state"], news["since"]) == ("news", "open", None)
    code, _, errors = await ctl("resume", "nobody")
    assert code != 0
    assert "there is no account 'nobody'; there are app, news, old" in errors
    code, out, _ = await ctl("resume", "app")
    assert code == 0
    assert "app may send again" in out
    assert (await ctl.rows("accounts"))[0]["state"] == "open"
    code, _, errors = await ctl("resume", "app")
    assert code != 0
    assert "app is not paused" in errors


async def test_a_suspended_account_is_shown_as_such_and_resuming_it_promises_nothing(relay: Any, ctl: Any) -> None:
    assert [row["state"] for row in await ctl.rows("accounts")] == ["open", "open", "suspended"]
    code, _, errors = await ctl("resume", "old")
    assert code != 0
    assert "old is not paused, but suspended" in errors
    pauses = relay.relay.pauses
    for _ in range(100):
        pauses._window("old").count(relay.relay._clock.now(), bounced=1)
    pauses._judge("old")
    (old,) = [row for row in await ctl.rows("accounts") if row["account"] == "old"]
    assert old["state"] == "suspended"
    assert "bounced" in old["reason"]
    code, out, _ = await ctl("resume", "old")
    assert code == 0
    assert "old is no longer paused, but suspended" in out
