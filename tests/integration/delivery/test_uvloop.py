"""The same on the event loop that the relay runs on: its transports and TLS are code of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from malote_dev.mailworld.behaviour import TlsMode
from malote_dev.mailworld.certificates import tlsa
from malote_dev.mailworld.mx import SinkMx
from malote_dev.mailworld.proxy import SocksProxy
from malote_relay.config import SmartHost, SmartHostTls, Socks5


@pytest.mark.parametrize("mode", [TlsMode.GOOD, TlsMode.NONE, TlsMode.BROKEN])
def test_small_and_large_messages_arrive_over_one_connection(make_world: Any, mode: TlsMode) -> None:
    async def scenario() -> None:
        async with make_world() as world:
            mx = await world.domain("shop.example")
            mx.tls = mode
            await world.start(max_connections_per_destination=1)
            large = b"Subject: large\r\n\r\n" + (b"." + b"x" * 900 + b"\r\n") * 2000
            await world.send("bia@shop.example")
            await world.send("bia@shop.example", content=large)
            await world.send("bia@shop.example")
            messages = await mx.wait_for(3)
            assert messages[1].content == large
            assert {bool(message.tls) for message in messages} == {mode is TlsMode.GOOD}
            assert len({message.connection for message in messages}) == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_certificates_are_verified_and_mail_leaves_through_a_proxy(make_world: Any) -> None:
    async def scenario() -> None:
        async with make_world() as world:
            signed, policed = await world.domain("signed.example"), await world.domain("policed.example")
            certificate, key = world.authority.issue([signed.hostname])
            signed.certificate = (certificate + world.authority.pem, key)
            world.dns.sign("signed.example")
            world.dns.set(f"_{signed.port}._tcp.{signed.hostname}", "TLSA", tlsa(world.authority.pem, 2))
            await world.policy("policed.example", "enforce", policed.hostname)
            world.validating = True
            async with SocksProxy(f"{world.network}.201") as proxy:
                await world.start(tls=world.trust(), socks5=Socks5(host=proxy.address, port=proxy.port))
                await world.send("bia@signed.example", "rui@policed.example")
                ends = {one.recipient.address: one.tls.split(" ")[-1] for one in await world.ended(2)}
                assert ends == {"bia@signed.example": "dane-ta", "rui@policed.example": "mta-sts"}
                assert (world.web.address, world.web.port) in {(one.address, one.port) for one in proxy.asked}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_a_smart_host_may_begin_with_tls(make_world: Any) -> None:
    async def scenario() -> None:
        async with make_world() as world:
            host = SinkMx(
                f"{world.network}.200",
                hostname="smart.example",
                authority=world.authority,
                login=("relay", "secret"),
                implicit_tls=True,
            )
            await host.start()
            world.hosts.append(host)
            world.dns.set("smart.example", "A", host.address)
            smart = SmartHost(
                host="smart.example",
                port=host.port,
                tls=SmartHostTls.IMPLICIT,
                username="relay",
                password_file="smart",
            )
            await world.start(tls=world.trust(), smart_host=smart, credentials={"smart": "secret"})
            await world.send("bia@shop.example")
            (outcome,) = await world.ended(1)
            assert outcome.tls.endswith(" smart-host"), outcome

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
