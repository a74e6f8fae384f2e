"""The command: how it starts, how it says that it cannot, how it ends, and what is there afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from typing import Any

import msgspec
import pytest
from tests.integration.relay.running import plain

from malote_dev.mailworld.behaviour import Action, Behaviour
from malote_relay.config import CONFIG_FILE


async def failing(site: Any) -> str:
    """Start it, and give what it says before it ends with 1."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "malote_relay", "--config", str(site.directory), "--spool", str(site.spool),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode == 1
    return said.decode().splitlines()[-1]


async def test_it_delivers_and_ends_with_0_on_sigterm(program: Any, world: Any, compose: Any) -> None:
    await program.start()
    assert (await program.send(compose())).accepted
    await world.mx.wait_for(1)
    assert await program.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_what_waits_is_delivered_after_a_restart(
    program: Any, world: Any, site: Any, compose: Any, how: int
) -> None:
    site.change(delivery={"first_retry_seconds": 1})
    world.mx.behaviour = Behaviour(action=Action.DEFER)
    await program.start()
    for number in range(5):
        assert (await program.send(compose(), to=(f"r{number}@dest.example",))).accepted
    await program.end(how)
    assert not world.mx.messages
    world.mx.behaviour = Behaviour()
    await program.start()
    messages = await world.mx.wait_for(5, timeout=90)
    assert {recipient for message in messages for recipient in message.recipients} == {
        f"r{number}@dest.example" for number in range(5)
    }


async def test_the_hours_charges_survive_a_kill(program: Any, site: Any, compose: Any) -> None:
    site.begin_an_hour()
    site.change(plan={"messages_per_hour": 3, "tolerance_percent": 0})
    await program.start()
    for _ in range(3):
        assert (await program.send(compose())).accepted
    await program.end(signal.SIGKILL)
    await program.start()
    assert str(await program.send(compose())).startswith("550 5.7.1 hourly limit reached")


async def test_a_handshake_that_comes_with_the_connection_is_not_lost(program: Any, site: Any) -> None:
    await program.start()
    program.process.send_signal(signal.SIGSTOP)  # a busy relay: it will find the connection and the handshake at once
    connecting = asyncio.create_task(
        asyncio.open_connection(
            "127.0.0.1", program.ports["submissions"], ssl=site.client_context(), server_hostname="acme.smtp.example"
        )
    )
    await asyncio.sleep(0.3)
    program.process.send_signal(signal.SIGCONT)
    async with asyncio.timeout(60):
        reader, writer = await connecting
        assert (await reader.readline()).startswith(b"220 ")
    writer.transport.abort()


async def test_a_transaction_under_way_finishes_and_new_sessions_are_turned_away(
    program: Any, site: Any, world: Any
) -> None:
    await program.start("--grace", "60")
    port = program.ports["submissions"]
    context = site.client_context()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="acme.smtp.example"
    )

    async def say(text: str) -> str:
        writer.write(text.encode() + b"\r\n")
        line = (await reader.readline()).decode()
        while line[3:4] == "-":
            line = (await reader.readline()).decode()
        return line

    await reader.readline()
    await say("EHLO client.example")
    token = plain("app@acme", site.password)
    for line in (f"AUTH PLAIN {token}", "MAIL FROM:<ana@acme.example>", "RCPT TO:<bob@dest.example>", "DATA"):
        assert (await say(line))[0] in "23"
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", program.ports["submission"])
    await idle_reader.readline()
    program.process.send_signal(signal.SIGTERM)
    await program.said("stopping")
    assert (await idle_reader.readline()).startswith(b"421 4.3.2")
    new_reader, new_writer = await asyncio.open_connection("127.0.0.1", program.ports["submission"])
    assert (await new_reader.readline()).startswith(b"421 4.3.2")
    assert (await say("From: ana@acme.example\r\n\r\nx\r\n.")).startswith("250 2.0.0")
    assert (await reader.readline()).startswith(b"421 4.3.2")
    async with asyncio.timeout(45):
        assert await program.process.wait() == 0
    # It went out at once, or waits: either way it arrives.
    await program.start()
    assert len(await world.mx.wait_for(1)) == 1
    for each in (writer, idle_writer, new_writer):
        with contextlib.suppress(Exception):
            each.close()


async def test_a_client_that_stays_does_not_keep_it_from_stopping(program: Any, site: Any) -> None:
    await program.start("--grace", "1")
    _, writer = await asyncio.open_connection("127.0.0.1", program.ports["submission"])
    assert await program.end(signal.SIGTERM) == 0
    writer.close()


async def test_a_missing_file_is_named(site: Any) -> None:
    (site.directory / CONFIG_FILE).unlink()
    assert await failing(site) == (
        f"malote-relay: {site.directory / CONFIG_FILE} cannot be read: No such file or directory"
    )
    site.write()
    (site.directory / "tls/tls.crt").unlink()
    assert "tls.crt is missing: put the listeners' certificate chain and key there" in await failing(site)


async def test_a_port_that_is_taken_is_named(site: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name in ("submission_port", "submissions_port", "observe_port"):
            site.change(listen={"submission_port": 0, "submissions_port": 0, "observe_port": 0} | {name: port})
            said = await failing(site)
            assert said.startswith(f"malote-relay: cannot listen on 127.0.0.1:{port}: ")
            assert "address already in use" in said.lower()


async def test_a_spool_in_use_is_not_opened_twice(program: Any, site: Any) -> None:
    await program.start()
    assert str(site.spool) in await failing(site)


async def test_passwords_and_content_stay_out_of_the_log(program: Any, world: Any, site: Any, compose: Any) -> None:
    await program.start()
    assert (await program.send(compose("the very secret content"))).accepted
    await world.mx.wait_for(1)
    program.process.send_signal(signal.SIGTERM)
    _, log = await program.process.communicate()
    assert "stopped" in {msgspec.json.decode(line)["event"] for line in log.splitlines()}
    assert b"secret content" not in log
    assert site.password.encode() not in log


async def test_the_listen_address_of_the_environment_wins(
    program: Any, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALOTE_LISTEN", "127.0.0.77")
    await program.start()
    _, writer = await asyncio.open_connection("127.0.0.77", program.ports["submission"])
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", program.ports["submission"])
