"""A relay with fronts (`listen.processes`): processes of their own speak to the clients, one counts and stores."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.relay.running import eventually, plain

from malote_relay.config import configuration_hash, encode
from malote_relay.fronts import supervisor
from malote_relay.fronts.channel import Channel


@pytest.fixture(autouse=True)
def fronts(site: Any) -> None:
    site.change(listen={"processes": 2}, limits={"max_sessions_per_client": 500})


async def spread(relay: Any, count: int) -> list[Any]:
    """Clients that are signed in, some at each front: the kernel deals them out, now and then all to one."""
    clients = list(await asyncio.gather(*(relay.signed_in() for _ in range(count))))
    for _ in range(50):
        if used(relay) == 2:
            break
        clients.pop(0).close()
        await eventually(lambda: sum(front.clients.total() for front in relay.relay.server._fronts) < count)
        clients.append(await relay.signed_in())
    assert used(relay) == 2
    return clients


async def in_step(relay: Any) -> None:
    """Wait until each front knows what the others have seen: it came to the core, and from there to all."""
    for _ in range(2):
        await relay.relay.server.reload()


async def in_one_minute(work: Callable[[], Any]) -> Any:
    """What it gives when no minute begins meanwhile: there is a limit by the minute."""
    while True:
        minute = time.monotonic() // 60
        done = await work()
        if time.monotonic() // 60 == minute:
            return done
        await asyncio.sleep(61 - time.monotonic() % 60)


def used(relay: Any) -> int:
    """How many fronts have sessions."""
    return sum(bool(front.clients) for front in relay.relay.server._fronts)


async def test_a_message_goes_through_any_front_signed_and_whole(relay: Any, world: Any, compose: Any) -> None:
    clients = await spread(relay, 12)
    for number, client in enumerate(clients):
        for line in ("MAIL FROM:<ana@acme.example>", f"RCPT TO:<r{number}@dest.example>", "DATA"):
            assert (await client.say(line))[0] in "23"
        assert (await client.say(compose() + b".\r\n")).startswith("250 2.0.0 accepted as ")
    messages = await world.mx.wait_for(12)
    assert {one.recipients[0] for one in messages} == {f"r{number}@dest.example" for number in range(12)}
    assert all(b"DKIM-Signature:" in one.content for one in messages)
    assert relay.counted("malote_messages_accepted_total", account="app") == 12
    assert relay.counted("malote_sessions") == 12


async def test_a_large_message_is_handed_over_by_its_file(relay: Any, world: Any, compose: Any, site: Any) -> None:
    text = "\r\n".join(["a line of some length, to fill the message up with"] * 20_000)
    assert (await relay.send(compose(text))).accepted
    [arrived] = await world.mx.wait_for(1)
    assert len(arrived.content) > 1_000_000
    assert not list((site.spool / "incoming").iterdir())


async def test_a_fronts_share_of_what_may_be_in_flight_is_never_less_than_a_message(
    start: Any, site: Any, compose: Any
) -> None:
    site.change(limits={"max_body_bytes_in_flight": 1_500_000})
    relay = await start()
    text = "\r\n".join(["a line of some length, to fill the message up with"] * 20_000)
    assert (await relay.send(compose(text))).accepted


async def test_the_hours_limit_is_exact_over_all_fronts(start: Any, site: Any, compose: Any) -> None:
    site.begin_an_hour()
    site.change(plan={"messages_per_hour": 300, "tolerance_percent": 20, "max_recipients": 100})
    relay = await start()
    clients = await spread(relay, 12)

    async def fill(client: Any) -> tuple[int, str]:
        accepted, refusal = 0, ""
        for turn in range(6):
            await client.say("MAIL FROM:<ana@acme.example>")
            taken = 0
            for number in range(10):
                reply = await client.say(f"RCPT TO:<r{turn}.{number}@dest.example>")
                taken += reply.startswith("250")
                refusal = refusal if reply.startswith("250") else reply
            if not taken:
                break
            if turn == 2:  # some change their mind: what they had is for the others
                await client.say("RSET")
                continue
            await client.say("DATA")
            assert (await client.say(compose() + b".\r\n")).startswith("250")
            accepted += taken
        return accepted, refusal

    ends = await asyncio.gather(*map(fill, clients))
    # Whoever gave units back last may have left some: one client takes what is left, and then there is none.
    await in_step(relay)
    last = await fill(clients[0])
    assert sum(accepted for accepted, _ in ends) + last[0] == 360
    assert await relay.stored() + relay.relay._window.usage(relay.relay._clock.now()).held == 360
    assert last[1].startswith("550 5.7.1 hourly limit reached")
    await eventually(lambda: relay.reserved() == 0)


async def test_a_change_is_told_once_every_front_has_it(relay: Any, site: Any, eventually: Any) -> None:
    clients = await spread(relay, 12)
    site.change(submission={"open": False, "reason": "closed for a test"})
    wanted = configuration_hash(encode(site.config))
    await eventually(lambda: relay.relay._readiness()["configHash"] == wanted)
    for client in clients:
        assert (await client.say("MAIL FROM:<ana@acme.example>")).endswith("closed for a test")
    await eventually(lambda: relay.counted("malote_messages_refused_total", reason="submission_closed") == 12)


async def test_sessions_are_limited_over_all_fronts(start: Any, site: Any) -> None:
    site.change(limits={"max_sessions": 500, "max_sessions_per_client": 8})
    relay = await start()
    greetings = []
    for _ in range(12):
        dialogue = await relay.plain(greet=False)
        greetings.append((await dialogue.read())[:3])
        await in_step(relay)
    assert greetings == ["220"] * 8 + ["421"] * 4


async def test_failed_sign_ins_are_capped_over_all_fronts(start: Any, site: Any) -> None:
    site.change(sign_in={"max_failures_per_client": 4, "max_failures_per_client_and_account": 100})
    relay = await start()
    await guesses(relay, 4)
    await in_step(relay)
    assert [(await (await guess(relay)).read())[:3] for _ in range(8)] == ["421"] * 8


async def guess(relay: Any) -> Any:
    """A connection on which a wrong password has been given."""
    dialogue = await relay.secure()
    await dialogue.say("EHLO client.example")
    dialogue.send(f"AUTH PLAIN {plain('somebody', 'wrong')}")
    return dialogue


async def guesses(relay: Any, count: int) -> None:
    """So many failed sign-ins that the core knows of; their answers are delayed, their count is not."""
    for _ in range(count):
        await guess(relay)
    await eventually(lambda: len(relay.relay.server._sign_ins._failed) == count)


async def test_a_front_that_is_started_anew_knows_of_the_failed_sign_ins_before_it(
    start: Any, site: Any, eventually: Any
) -> None:
    site.change(sign_in={"max_failures_per_client": 4, "max_failures_per_client_and_account": 100})
    relay = await start()
    await guesses(relay, 4)
    server = relay.relay.server
    first = set(server.pids)
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not first & set(server.pids) and all(front.begun for front in server._fronts))
    for _ in range(6):  # whichever front they come to
        assert (await (await guess(relay)).read()).startswith("421 4.7.0 too many failed sign-ins")


async def test_connections_without_sign_in_are_limited_over_all_fronts(
    start: Any, site: Any, eventually: Any
) -> None:
    site.change(limits={"max_connections_without_sign_in_per_minute": 8})
    relay = await start()

    async def greetings() -> list[str]:
        for _ in range(10):  # these do not count: they have signed in
            (await relay.signed_in()).close()
        await eventually(lambda: relay.counted("malote_sessions") == 0)
        await in_step(relay)
        said = []
        for _ in range(12):
            dialogue = await relay.plain(greet=False)
            said.append((await dialogue.read())[:3])
            await in_step(relay)
        return said

    if time.monotonic() % 60 > 45:
        await asyncio.sleep(61 - time.monotonic() % 60)
    assert await in_one_minute(greetings) == ["220"] * 8 + ["421"] * 4


async def test_a_front_that_is_killed_gives_back_what_it_had_and_is_followed_by_another(
    start: Any, site: Any, eventually: Any, compose: Any
) -> None:
    site.begin_an_hour()
    site.change(plan={"messages_per_hour": 40, "tolerance_percent": 0})
    relay = await start()
    clients = await spread(relay, 12)
    for client in clients:
        await client.say("MAIL FROM:<ana@acme.example>")
        for number in range(3):
            assert (await client.say(f"RCPT TO:<r{number}@dest.example>")).startswith("250")
    assert relay.reserved() == 36
    first = set(relay.relay.server.pids)
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    server = relay.relay.server
    await eventually(lambda: not first & set(server.pids) and all(front.begun for front in server._fronts))
    assert relay.reserved() == 0
    await eventually(lambda: relay.counted("malote_sessions") == 0)
    assert (await relay.send(compose(), to=tuple(f"r{number}@dest.example" for number in range(40)))).accepted


async def test_a_front_is_followed_by_another_also_when_what_it_was_writing_cannot_be_removed(
    start: Any, site: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await start()
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "incoming":
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    server = relay.relay.server
    first = set(server.pids)
    for number, pid in enumerate(server.pids):
        (site.spool / "incoming" / f"front{number}-x").touch()
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not first & set(server.pids) and all(front.begun for front in server._fronts), 15.0)


@pytest.mark.parametrize(("owner", "name"), [(socket, "socketpair"), (Channel, "over")])
async def test_a_front_that_cannot_be_started_now_is_started_later(
    relay: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    before, failures = getattr(owner, name), 0

    def failing(*arguments: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return before(*arguments)

    monkeypatch.setattr(owner, name, failing)
    server = relay.relay.server
    first = server.pids[0]
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: failures > 1 and first not in server.pids, 15.0)
    await eventually(lambda: len(server.pids) == 2 and all(front.begun for front in server._fronts), 15.0)


async def test_nothing_acknowledged_is_lost_when_fronts_are_killed_under_load(
    start: Any, site: Any, world: Any, compose: Any
) -> None:
    site.change(plan={"messages_per_hour": 100_000})
    relay = await start()
    acknowledged: set[str] = set()
    done = asyncio.Event()

    async def load(name: int) -> None:
        number = 0
        while not done.is_set():
            with contextlib.suppress(ConnectionError, OSError, AssertionError, TimeoutError):
                client = await relay.signed_in()
                while not done.is_set():
                    recipient = f"c{name}.{number}@dest.example"
                    number += 1
                    for line in ("MAIL FROM:<ana@acme.example>", f"RCPT TO:<{recipient}>", "DATA"):
                        assert (await client.say(line))[:1] in ("2", "3")
                    if (await client.say(compose() + b".\r\n")).startswith("250 2.0.0"):
                        acknowledged.add(recipient)
            await asyncio.sleep(0.05)

    loads = [asyncio.create_task(load(name)) for name in range(6)]

    async def some_more() -> None:
        wanted = len(acknowledged) + 10
        await eventually(lambda: len(acknowledged) >= wanted)

    for turn in range(4):
        await some_more()
        pids = relay.relay.server.pids
        if pids:
            os.kill(pids[turn % len(pids)], signal.SIGKILL)
    await some_more()
    done.set()
    await asyncio.gather(*loads)
    async with asyncio.timeout(60):
        while True:
            arrived = {recipient for one in world.mx.messages for recipient in one.recipients}
            if acknowledged <= arrived:
                break
            await asyncio.sleep(0.1)


async def test_fronts_end_with_the_core_whether_it_is_asked_to_or_killed(
    program: Any, compose: Any, world: Any, eventually: Any
) -> None:
    def children() -> list[int]:
        pid = program.process.pid
        return [int(one) for one in open(f"/proc/{pid}/task/{pid}/children").read().split()]

    def alive(pids: list[int]) -> list[int]:
        return [pid for pid in pids if os.path.exists(f"/proc/{pid}") and b"front" in _command(pid)]

    for how, code in ((signal.SIGTERM, 0), (signal.SIGKILL, -9)):
        await program.start("--grace", "2")
        fronts = children()
        assert len(fronts) == 2
        assert (await program.send(compose())).accepted
        assert await program.end(how) == code
        await eventually(lambda pids=fronts: not alive(pids))
    await program.start()
    await world.mx.wait_for(2)


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
    return b""


async def test_a_transaction_under_way_in_a_front_finishes(start: Any, compose: Any, world: Any) -> None:
    relay = await start()
    client = await relay.at_data()
    stopping = asyncio.create_task(relay.relay.server.stop(30.0))
    await asyncio.sleep(0.3)
    assert (await client.say(compose() + b".\r\n")).startswith("250 2.0.0")
    assert (await client.read()).startswith("421 4.3.2")
    async with asyncio.timeout(25):
        await stopping
    assert len(await world.mx.wait_for(1)) == 1


async def test_a_front_that_hangs_is_ended_and_nobody_waits_for_the_units_it_has(
    start: Any, site: Any, eventually: Any, compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.begin_an_hour()
    site.change(plan={"messages_per_hour": 300, "tolerance_percent": 0})
    relay = await start()
    server = relay.relay.server
    clients = await spread(relay, 12)
    for client in clients:
        await client.say("MAIL FROM:<ana@acme.example>")
        assert (await client.say("RCPT TO:<r@dest.example>")).startswith("250")
    assert relay.reserved() > 12  # both have some in stock
    hanging = server.pids[0]
    os.kill(hanging, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "_PING_SECONDS", 0.3)
        await eventually(lambda: hanging not in server.pids and all(front.begun for front in server._fronts))
    for client in clients:
        client.close()
    await eventually(lambda: relay.counted("malote_sessions") == 0)
    to = tuple(f"r{number}@dest.example" for number in range(100))
    for _ in range(3):
        assert (await relay.send(compose(), to=to)).accepted


async def test_a_client_is_answered_whatever_breaks_in_the_core(
    relay: Any, compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("broken for a test")

    client = await relay.signed_in()
    monkeypatch.setattr(relay.relay.suppressions, "check", broken)
    await client.say("MAIL FROM:<ana@acme.example>")
    assert (await client.say("RCPT TO:<bob@dest.example>")).startswith("451 4.3.0")
    monkeypatch.undo()
    assert (await client.say("RCPT TO:<bob@dest.example>")).startswith("250")
    monkeypatch.setattr(relay.relay._desk, "take", broken)
    await client.say("DATA")
    assert (await client.say(compose() + b".\r\n")).startswith("451 4.3.0")
    assert (await client.say("NOOP")).startswith("250")
