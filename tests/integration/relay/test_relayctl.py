"""`malote-relayctl` against a running relay: what people see of the queue, and what they can do to it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour


@pytest.fixture
async def deferring(relay: Any, world: Any, compose: Any, eventually: Any) -> Any:
    """A relay in whose queue one message for two recipients was deferred."""
    world.mx.behaviour = Behaviour(action=Action.DEFER)
    assert (await relay.send(compose(), to=("bob@dest.example", "eva@dest.example"))).accepted

    async def deferred() -> bool:
        return bool((await relay.relay._store.queue_state(time.time())).deferred == 2)

    await eventually(deferred)
    return relay


async def test_the_queue_shows_what_waits_and_why(deferring: Any, ctl: Any) -> None:
    bob, eva = await ctl.rows("queue")
    assert (bob["recipient"], eva["recipient"]) == ("bob@dest.example", "eva@dest.example")
    assert bob["sender"] == "ana@acme.example"
    assert (bob["state"], bob["attempts"]) == ("deferred", 1)
    assert bob["lastReply"].startswith("451 4.3.0")
    assert "temporary failure" in bob["why"]
    assert 0 < bob["until"] - time.time() < 90
    assert bob["until"] == bob["nextAttempt"]
    code, out, _ = await ctl("queue", "--limit", "1")
    assert code == 0
    heading, line = out.splitlines()
    assert heading.split()[:3] == ["MESSAGE", "STATE", "AGE"]
    assert line.split()[:2] == [bob["message"], "deferred"]


async def test_the_queue_can_be_filtered(deferring: Any, ctl: Any) -> None:
    assert len(await ctl.rows("queue", "--domain", "DEST.example", "--account", "app", "--state", "deferred")) == 2
    assert not await ctl.rows("queue", "--domain", "else.example")
    assert not await ctl.rows("queue", "--account", "news")
    assert not await ctl.rows("queue", "--state", "held")
    assert (await ctl("queue", "--state", "held"))[1] == "(nothing)\n"


async def test_domains_and_addresses_may_be_written_as_people_write_them(
    relay: Any, world: Any, ctl: Any, eventually: Any, compose: Any
) -> None:
    world.mx.behaviour = Behaviour(action=Action.DEFER)
    for name in ("xn--mnchen-3ya.example", "dest.example"):
        world.dns.set(name, "MX", "10 mx.dest.example.")
    assert (await relay.send(compose(), to=("bob@dest.example", "eva@xn--mnchen-3ya.example"))).accepted

    async def deferred() -> bool:
        return bool((await relay.relay._store.queue_state(time.time())).deferred == 2)

    await eventually(deferred)
    for written in ("münchen.example", "MÜNCHEN.example", "xn--mnchen-3ya.example.", "@xn--mnchen-3ya.example"):
        (row,) = await ctl.rows("queue", "--domain", written)
        assert row["recipient"] == "eva@xn--mnchen-3ya.example"
    assert (await ctl.rows("retry", "--domain", "münchen.example"))[0]["recipients"] == 1
    assert (await ctl.rows("drop", row["message"], "--recipient", "bob@DEST.example"))[0]["recipients"] == 1
    assert (await ctl.rows("drop", row["message"], "--recipient", "eva@münchen.example"))[0]["recipients"] == 1
    assert not await ctl.rows("queue")


async def test_a_message_says_of_each_recipient_where_it_stands(
    deferring: Any, world: Any, ctl: Any, eventually: Any
) -> None:
    (message,) = {row["message"] for row in await ctl.rows("queue")}
    waiting = await ctl.rows("why", message)
    assert [row["state"] for row in waiting] == ["deferred", "deferred"]
    assert waiting[0]["givenUp"] == pytest.approx(time.time() + 5 * 86_400, abs=120)
    world.mx.behaviour = Behaviour()
    assert (await ctl.rows("retry", message))[0]["recipients"] == 2
    await world.mx.wait_for(1)

    async def ended() -> bool:
        return {row["state"] for row in await ctl.rows("why", message)} == {"delivered"}

    await eventually(ended)
    bob = next(row for row in await ctl.rows("why", message) if row["recipient"] == "bob@dest.example")
    assert "it was taken by mx.dest.example[127." in bob["why"]
    assert "TLSv1.3" in bob["why"]
    assert bob["attempts"] == 2
    assert abs(bob["ended"] - time.time()) < 120
    assert bob["until"] is None


async def test_a_domain_is_retried(deferring: Any, world: Any, ctl: Any) -> None:
    world.mx.behaviour = Behaviour()
    (none,) = await ctl.rows("retry", "--domain", "else.example")
    assert none["recipients"] == 0
    (done,) = await ctl.rows("retry", "--domain", "dest.example")
    assert done["recipients"] == 2
    await world.mx.wait_for(1)


async def test_what_is_held_for_its_hour_is_not_let_out_by_a_retry(
    site: Any, start: Any, world: Any, compose: Any, ctl: Any
) -> None:
    site.begin_an_hour()
    site.change(plan={"messages_per_hour": 1, "tolerance_percent": 100})
    relay = await start()
    for _ in range(2):
        assert (await relay.send(compose())).accepted
    await world.mx.wait_for(1)
    (held,) = await ctl.rows("queue", "--state", "held")
    assert "held" in held["why"]
    assert (await ctl.rows("retry", held["message"]))[0]["recipients"] == 0
    assert (await ctl.rows("queue", "--state", "held"))[0] == held | {"age": pytest.approx(held["age"], abs=120)}


async def test_a_dropped_message_ends_as_failed_and_its_sender_is_not_told(
    deferring: Any, world: Any, ctl: Any, eventually: Any
) -> None:
    (message,) = {row["message"] for row in await ctl.rows("queue")}
    (done,) = await ctl.rows("drop", message, "--recipient", "eva@dest.example")
    assert done["recipients"] == 1
    assert [row["recipient"] for row in await ctl.rows("queue")] == ["bob@dest.example"]
    code, out, _ = await ctl("drop", message)
    assert code == 0
    assert out.splitlines()[0] == "recipients: 1"
    assert not await ctl.rows("queue")
    ended = await ctl.rows("why", message)
    assert [row["state"] for row in ended] == ["failed", "failed"]
    assert ended[0]["lastReply"] == "554 5.0.0 taken off the queue by the relay's operator"
    state = await deferring.relay._store.queue_state(time.time())
    assert (state.ready, state.deferred, state.held) == (0, 0, 0)
    assert not world.provider.messages


async def test_what_was_held_and_is_dropped_does_not_count_as_waiting(
    site: Any, start: Any, world: Any, compose: Any, ctl: Any
) -> None:
    site.begin_an_hour()
    site.change(plan={"messages_per_hour": 2, "tolerance_percent": 100})
    relay = await start()
    for _ in range(4):
        assert (await relay.send(compose())).accepted
    await world.mx.wait_for(2)
    held, _ = await ctl.rows("queue", "--state", "held")
    assert (await ctl.rows("drop", held["message"]))[0]["recipients"] == 1
    state = await relay.relay._store.queue_state(time.time())
    assert (state.ready, state.deferred, state.held) == (0, 0, 1)


async def test_a_dropped_messages_sender_is_told_when_that_is_asked_for(deferring: Any, world: Any, ctl: Any) -> None:
    (message,) = {row["message"] for row in await ctl.rows("queue")}
    await ctl.rows("drop", message, "--notify")
    (told,) = await world.provider.wait_for(1)
    assert b"taken off the queue" in told.content


async def test_destinations_are_listed(deferring: Any, ctl: Any) -> None:
    (row,) = [row for row in await ctl.rows("destinations") if row["destination"] == "mx.dest.example"]
    assert row["limit"] == 10
    assert row["inLine"] == 0


async def test_it_says_what_it_does_not_understand(deferring: Any, ctl: Any) -> None:
    for arguments, exit_code, words in (
        (("why", "m0"), 1, "no message 'm0' waits here, and the events kept know of none"),
        (("retry",), 1, "name a message, or --domain"),
        (("retry", "m0"), 1, "no message 'm0' waits here"),
        (("drop", "m0"), 1, "no message 'm0' waits here"),
        (("queue", "--limit", "-1"), 1, "`int` >= 0"),
        (("queue", "--limit", "x"), 2, "invalid int value: 'x'"),
        (("queue", "--state", "lost"), 2, "invalid choice: 'lost'"),
        (("queue", "--domain", "dest..example"), 1, "'dest..example' is not a domain name"),
        (("retry", "--domain", "."), 1, "'.' is not a domain name"),
        (("why", "m\udcff"), 1, "not text in UTF-8"),
        (("--timeout", "0", "queue"), 2, "'0' is no time to wait"),
        (("--timeout", "-1", "queue"), 2, "'-1' is no time to wait"),
        (("--timeout", "nan", "queue"), 2, "'nan' is no time to wait"),
        (("--timeout", "1e300", "queue"), 2, "'1e300' is no time to wait"),
        (("--timeout", "soon", "queue"), 2, "'soon' is no time to wait"),
        (("eueuq",), 2, "invalid choice: 'eueuq'"),
        ((), 2, "COMMAND"),
    ):
        code, out, errors = await ctl(*arguments)
        assert (code, out) == (exit_code, "")
        assert words in errors


async def test_a_terminal_that_lacks_a_letter_shows_the_rest(relay: Any, ctl: Any) -> None:
    assert (await ctl("suppress", "josé@dest.example"))[0] == 0
    code, out, errors = await ctl("suppressions", PYTHONIOENCODING="ascii")
    assert (code, errors) == (0, "")
    assert "jos\\xe9@dest.example  manual" in out


async def test_its_help_lists_the_relays_commands_and_their_arguments(relay: Any, ctl: Any) -> None:
    code, out, _ = await ctl("--help")
    assert code == 0
    for word in ("queue", "why", "destinations", "retry", "drop", "--json"):
        assert word in out
    code, out, _ = await ctl("queue", "--help")
    assert code == 0
    assert "--domain" in out
    assert "{ready,deferred,held}" in out


async def test_without_a_relay_it_says_so(ctl: Any, tmp_path: Any) -> None:
    code, out, errors = await ctl("queue", spool=str(tmp_path))
    assert (code, out) == (1, "")
    assert "no relay answers at" in errors
    code, out, errors = await ctl("--help", spool=str(tmp_path))
    assert code == 0
    assert "--spool" in out
    assert "no relay answers at" in errors


async def test_a_long_queue_is_read_to_its_end(
    relay: Any, world: Any, ctl: Any, eventually: Any, compose: Any
) -> None:
    """More than one step of the store's, in the order of arrival; and whoever has seen enough may go."""
    world.mx.behaviour = Behaviour(action=Action.DEFER)
    recipients = tuple(f"r{number}@dest.example" for number in range(100))
    for _ in range(11):
        await relay.send(compose(), to=recipients)
    listed = await ctl.rows("queue", "--limit", "0")
    assert [row["recipient"] for row in listed] == list(recipients) * 11
    assert len(await ctl.rows("queue")) == 100
