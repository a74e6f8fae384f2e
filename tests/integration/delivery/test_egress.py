"""Ways out: a smart host, a SOCKS5 proxy, and address families that lead nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage, TlsMode
from malote_dev.mailworld.mx import SinkMx
from malote_dev.mailworld.proxy import Asked, SocksProxy
from malote_relay.config import SmartHost, SmartHostTls, Socks5
from malote_relay.store.model import Outcome, Result

LOGIN = ("relay", "a secret, the smart host's")
CREDENTIALS = {"smart": LOGIN[1]}


async def smart_host(world: Any, **settings: Any) -> SinkMx:
    host = SinkMx(f"{world.network}.200", hostname="smart.example", authority=world.authority, **settings)
    await host.start()
    world.hosts.append(host)
    world.dns.set("smart.example", "A", host.address)
    return host


async def delivered_by(
    world: Any,
    host: SinkMx,
    tls: SmartHostTls,
    *,
    username: str = LOGIN[0],
    credentials: Any = CREDENTIALS,
    **settings: Any,
) -> Outcome:
    smart = SmartHost(
        host="smart.example", port=host.port, tls=tls, username=username, password_file="smart" if username else ""
    )
    await world.start(smart_host=smart, tls=world.trust(), credentials=credentials, **settings)
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("implicit", [False, True])
async def test_all_mail_goes_to_the_smart_host_after_signing_in(world: Any, mechanism: str, implicit: bool) -> None:
    mx = await world.domain("shop.example")
    host = await smart_host(world, login=LOGIN, mechanisms=[mechanism], implicit_tls=implicit)
    # Its address is not among the allowed networks: naming it in the configuration is enough.
    tls = SmartHostTls.IMPLICIT if implicit else SmartHostTls.REQUIRED
    outcome = await delivered_by(world, host, tls, allow_networks=())
    assert outcome.result is Result.DELIVERED, outcome
    assert outcome.tls.endswith(" smart-host")
    assert [message.recipients for message in host.messages] == [("bia@shop.example",)]
    assert [step.argument for step in host.commands if step.verb == "AUTH"] == [f"{mechanism} relay"]
    assert not mx.connections
    assert not any(query.rdtype == "MX" for query in world.dns.queries)


async def test_the_session_with_the_smart_host_serves_every_domain(world: Any) -> None:
    host = await smart_host(world, login=LOGIN)
    await delivered_by(world, host, SmartHostTls.REQUIRED)
    await world.send("rui@other.example")
    await host.wait_for(2)
    assert host.connections == 1


async def test_what_waits_when_a_smart_host_is_set_goes_there_and_nothing_more_past_it(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.SLOW, delay=0.2)
    scheduler = await world.start(max_connections_per_destination=1)
    many = [f"r{number}@shop.example" for number in range(3)]
    await world.send("bia@shop.example")
    await world.wait(lambda: any(step.verb == "MAIL" for step in mx.commands))
    for recipient in many:
        await world.send(recipient)
    host = await smart_host(world)
    smart = SmartHost(host="smart.example", port=host.port, tls=SmartHostTls.REQUIRED)
    scheduler.reconfigure(world.config(smart_host=smart, tls=world.trust(), max_connections_per_destination=1))
    await host.wait_for(3)
    await world.ended(4)
    assert [message.recipients for message in mx.messages] == [("bia@shop.example",)]
    assert [message.recipients for message in host.messages] == [(one,) for one in many]


async def test_a_message_under_way_goes_to_no_further_host_by_the_way_that_was(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.DEFER, stage=Stage.RCPT, delay=0.5)
    second = await world.domain("second.example")
    world.dns.set("shop.example", "MX", f"10 {mx.hostname}.", f"20 {second.hostname}.")
    scheduler = await world.start()
    await world.send("bia@shop.example")
    await world.wait(lambda: any(step.verb == "MAIL" for step in mx.commands))
    host = await smart_host(world)
    smart = SmartHost(host="smart.example", port=host.port, tls=SmartHostTls.REQUIRED)
    scheduler.reconfigure(world.config(smart_host=smart, tls=world.trust()))
    await host.wait_for(1)
    assert second.connections == 0


async def test_a_login_that_is_refused_lets_mail_wait_and_is_in_no_words(
    world: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    host = await smart_host(world, login=LOGIN)
    outcome = await delivered_by(world, host, SmartHostTls.REQUIRED, credentials={"smart": "an old password"})
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "auth")
    assert outcome.reply.startswith("451 4.7.8 smart.example[")
    assert "old password" not in outcome.reply + "".join(capfd.readouterr())


async def test_without_the_password_mail_waits_and_no_other_login_is_tried(world: Any) -> None:
    host = await smart_host(world, login=LOGIN)
    outcome = await delivered_by(world, host, SmartHostTls.REQUIRED, credentials={})
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "auth")
    assert outcome.reply.startswith("451 4.7.8 the password for smart.example[")
    assert not [step for step in host.commands if step.verb in {"AUTH", "MAIL"}]


async def test_a_smart_host_that_wants_a_login_we_have_not_lets_mail_wait(world: Any) -> None:
    host = await smart_host(world, login=LOGIN)
    outcome = await delivered_by(world, host, SmartHostTls.REQUIRED, username="")
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "auth")
    assert "wants another login: 530" in outcome.reply


@pytest.mark.parametrize(
    "mode", [TlsMode.NONE, TlsMode.SELF_SIGNED, TlsMode.WRONG_NAME, TlsMode.EXPIRED, TlsMode.UNAVAILABLE]
)
async def test_required_tls_is_verified_and_never_done_without(world: Any, mode: TlsMode) -> None:
    host = await smart_host(world, login=LOGIN, tls=mode)
    outcome = await delivered_by(world, host, SmartHostTls.REQUIRED)
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "tls")
    assert outcome.reply.startswith("451 4.7.5 no TLS with smart.example[")
    assert not [step for step in host.commands if step.verb in {"AUTH", "MAIL"}]


async def test_a_login_is_not_sent_in_clear(world: Any) -> None:
    host = await smart_host(world, tls=TlsMode.NONE)
    outcome = await delivered_by(world, host, SmartHostTls.OPPORTUNISTIC)
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "tls")
    assert "the login is not sent without" in outcome.reply


async def test_a_smart_host_without_an_address_bounces_nothing(world: Any) -> None:
    await world.start(smart_host=SmartHost(host="gone.example", tls=SmartHostTls.REQUIRED))
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.reply[:9]) == (Result.DEFERRED, "451 4.4.3")


@pytest.mark.parametrize("helo_name", ["out.relay.example", "smart.example"], ids=["takes no mail", "has our name"])
async def test_a_smart_host_that_is_set_up_wrongly_bounces_nothing(world: Any, helo_name: str) -> None:
    host = await smart_host(world)
    if helo_name != "smart.example":
        host.behaviour = Behaviour(action=Action.REFUSE, stage=Stage.CONNECT, reply="521 5.3.2 no mail is taken here")
    outcome = await delivered_by(world, host, SmartHostTls.REQUIRED, username="", helo_name=helo_name)
    assert outcome.result is Result.DEFERRED, outcome


@pytest.mark.parametrize("login", [None, ("relay", "word of the proxy")])
async def test_mail_leaves_through_the_proxy_by_address(world: Any, login: tuple[str, str] | None) -> None:
    mx = await world.domain("shop.example")
    async with SocksProxy(f"{world.network}.201", login=login) as proxy:
        settings = Socks5(host=proxy.address, port=proxy.port)
        if login:
            settings = Socks5(host=proxy.address, port=proxy.port, username=login[0], password_file="proxy")
        await world.start(
            socks5=settings, credentials={"proxy": login[1] if login else ""}, source_address="127.0.0.99"
        )
        await world.send("bia@shop.example")
        (message,) = await mx.wait_for(1)
        assert proxy.asked == [Asked(mx.address, mx.port, login[0] if login else "")]
        assert message.tls
        assert message.peer != "127.0.0.99"


async def test_the_proxy_is_no_way_around_what_may_be_connected_to(world: Any) -> None:
    await world.domain("shop.example")
    async with SocksProxy(f"{world.network}.201") as proxy:
        await world.start(socks5=Socks5(host=proxy.address, port=proxy.port), allow_networks=())
        await world.send("bia@shop.example")
        (outcome,) = await world.ended(1)
        assert outcome.reply.startswith("550 5.4.4")
        assert proxy.asked == []


async def test_a_proxy_that_is_down_or_refuses_us_lets_mail_wait(world: Any) -> None:
    await world.domain("shop.example")
    async with SocksProxy(f"{world.network}.201", login=("relay", "right")) as proxy:
        settings = Socks5(host=proxy.address, port=proxy.port, username="relay", password_file="proxy")
        scheduler = await world.start(socks5=settings, credentials={"proxy": "wrong"})
        await world.send("bia@shop.example")
        (first,) = await world.ended(1)
        assert (first.result, first.bounce_class) == (Result.DEFERRED, "connection")
        assert "refuses the user name and password" in first.reply
        await proxy.stop()
        scheduler.reconfigure(world.config(socks5=Socks5(host="127.0.0.1", port=proxy.port)))
        await world.send("rui@shop.example")
        second = (await world.ended(2))[1]
        assert (second.result, second.bounce_class) == (Result.DEFERRED, "connection")
        assert f"the SOCKS5 proxy 127.0.0.1:{proxy.port} cannot be reached" in second.reply


async def test_what_the_proxy_says_of_a_destination_reads_like_a_direct_connections_error(world: Any) -> None:
    mx = await world.domain("shop.example")
    async with SocksProxy(f"{world.network}.201") as proxy:
        proxy.refuse[mx.address] = 4
        await world.start(socks5=Socks5(host=proxy.address, port=proxy.port))
        await world.send("bia@shop.example")
        (outcome,) = await world.ended(1)
        assert outcome.bounce_class == "connection"
        assert "No route to host" in outcome.reply


async def test_ipv6_that_leads_nowhere_costs_no_time(world: Any) -> None:
    mx = await world.domain("shop.example")
    world.dns.set(mx.hostname, "AAAA", "2001:db8::25")
    async with SocksProxy(f"{world.network}.201") as proxy:
        proxy.refuse["2001:db8::25"] = 3
        await world.start(
            socks5=Socks5(host=proxy.address, port=proxy.port),
            allow_networks=(f"{world.network}.0/24", "2001:db8::/32"),
        )
        await world.send("bia@shop.example")
        await mx.wait_for(1)
        assert [one.address for one in proxy.asked] == ["2001:db8::25", mx.address]
        other = await world.domain("other.example")
        world.dns.set(other.hostname, "AAAA", "2001:db8::26")
        await world.send("rui@other.example")
        await other.wait_for(1)
        # The family is remembered: the second connection went straight to the other one.
        assert [one.address for one in proxy.asked[2:]] == [other.address]


async def test_a_host_that_calls_itself_by_our_name_is_a_loop(world: Any) -> None:
    mx = await world.domain("shop.example")
    await world.start(helo_name=mx.hostname)
    await world.send("bia@shop.example", sender="")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.bounce_class) == (Result.FAILED, "routing")
    assert outcome.reply.startswith("554 5.4.6")
