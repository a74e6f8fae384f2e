"""MTA-STS over real sockets: policies from a web server, held over restarts, enforced, or only told of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from malote_dev.mailworld.behaviour import TlsMode
from malote_dev.mailworld.mx import SinkMx
from malote_dev.mailworld.web import Page, WebServer
from malote_relay.store.model import Result


async def enforced(world: Any, *mx: str, **policy: Any) -> SinkMx:
    """shop.example with a policy, and a relay that knows the world's authority."""
    host: SinkMx = await world.domain("shop.example")
    await world.policy("shop.example", "enforce", *(mx or (host.hostname,)), **policy)
    await world.start(tls=world.trust())
    return host


async def test_a_host_that_keeps_the_policy_gets_the_mail_and_the_event_says_how(world: Any) -> None:
    await enforced(world, "*.shop.example")
    outcome = await world.sent()
    assert outcome.result is Result.DELIVERED, outcome
    assert outcome.tls.startswith("TLSv1")
    assert outcome.tls.endswith(" mta-sts")
    assert [visit.request for visit in world.web.visits] == ["GET /.well-known/mta-sts.txt"]


@pytest.mark.parametrize(
    "mode",
    [TlsMode.NONE, TlsMode.SELF_SIGNED, TlsMode.EXPIRED, TlsMode.WRONG_NAME, TlsMode.BROKEN, TlsMode.UNAVAILABLE],
)
async def test_a_host_that_does_not_gets_nothing_and_mail_waits(world: Any, mode: TlsMode) -> None:
    host = await enforced(world)
    host.tls = mode
    for _ in range(2):
        outcome = await world.sent()
        assert (outcome.result, outcome.bounce_class, outcome.reply[:9]) == (Result.DEFERRED, "tls", "451 4.7.5")
        assert "mta-sts requires TLS" in outcome.reply
    assert not [step for step in host.commands if step.verb == "MAIL"]


async def test_a_host_that_is_not_in_the_policy_is_passed_over_for_one_that_is(world: Any) -> None:
    first, second = await world.domain("shop.example"), await world.domain("backup.example")
    world.dns.set("shop.example", "MX", f"10 {first.hostname}.", f"20 {second.hostname}.")
    await world.policy("shop.example", "enforce", second.hostname)
    await world.start(tls=world.trust())
    outcome = await world.sent()
    assert outcome.result is Result.DELIVERED
    assert outcome.host.startswith(second.hostname)
    assert first.connections == 0


async def test_a_domain_none_of_whose_hosts_are_in_its_policy_gets_nothing(world: Any) -> None:
    host = await enforced(world, "other.example")
    outcome = await world.sent()
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "tls")
    assert f"{host.hostname} is not in the MTA-STS policy of shop.example" in outcome.reply
    assert host.connections == 0


@pytest.mark.parametrize("mode", [TlsMode.SELF_SIGNED, TlsMode.NONE, TlsMode.BROKEN])
async def test_testing_keeps_nothing_back(world: Any, mode: TlsMode) -> None:
    host = await world.domain("shop.example")
    host.tls = mode
    await world.policy("shop.example", "testing", host.hostname)
    await world.start(tls=world.trust())
    assert (await world.sent()).result is Result.DELIVERED


async def test_testing_with_a_host_that_is_not_listed_delivers_too(world: Any) -> None:
    await world.domain("shop.example")
    await world.policy("shop.example", "testing", "other.example")
    await world.start(tls=world.trust())
    assert (await world.sent()).tls.endswith(" opportunistic")


async def test_a_policy_outlives_the_relay_and_whoever_hides_it(world: Any) -> None:
    host = await enforced(world)
    assert (await world.sent()).result is Result.DELIVERED
    await world.stop()
    await world.reopen()
    await world.web.stop()
    world.dns.delete("_mta-sts.shop.example", "TXT")
    host.tls = TlsMode.NONE
    await world.start(tls=world.trust())
    assert (await world.sent()).bounce_class == "tls"


async def test_a_policy_ends_with_its_age(world: Any) -> None:
    host = await enforced(world, max_age=86_400)
    assert (await world.sent()).result is Result.DELIVERED
    world.dns.delete("_mta-sts.shop.example", "TXT")
    host.tls = TlsMode.NONE
    world.clock.ahead += 86_401
    world.scheduler._router.configure(world.scheduler._router._policy)  # forgets its routes
    world.scheduler._pool.close_idle()
    assert (await world.sent()).result is Result.DELIVERED


async def test_another_version_is_fetched_in_the_background_and_the_old_one_holds_meanwhile(world: Any) -> None:
    host = await enforced(world)
    await world.sent()
    await world.policy("shop.example", "none", id="2")
    fetched = world.web.pages["mta-sts.shop.example"].gate = asyncio.Event()
    host.tls = TlsMode.NONE
    world.scheduler._pool.close_idle()
    router = world.scheduler._router
    router.configure(router._policy)
    assert (await world.sent()).bounce_class == "tls"
    await world.wait(lambda: len(world.web.visits) >= 2)
    fetched.set()
    await world.wait(lambda: not world.scheduler._security._policies._asking)
    world.scheduler.reconfigure(world.config(tls=world.trust()))
    world.clock.ahead += 40  # the destination was down
    world.scheduler._pool._destinations.forget()
    assert (await world.sent()).result is Result.DELIVERED


@pytest.mark.parametrize(
    "page",
    [
        Page(b"nonsense"),
        Page(b"", 404),
        Page(b"", 301, {"Location": "https://elsewhere.example/", "Content-Type": "text/plain"}),
        Page(
            b"version: STSv1\nmode: enforce\nmx: other.example\nmax_age: 86400\n", 200, {"Content-Type": "text/html"}
        ),
        Page(b"x" * 70_000),
    ],
    ids=["nonsense", "missing", "redirect", "html", "huge"],
)
async def test_a_policy_that_is_not_to_be_had_is_none_and_not_asked_for_again_at_once(world: Any, page: Page) -> None:
    host = await world.domain("shop.example")
    await world.policy("shop.example", "enforce", "other.example")
    world.web.pages["mta-sts.shop.example"] = page
    await world.start(tls=world.trust())
    assert (await world.sent()).result is Result.DELIVERED
    router = world.scheduler._router
    router.configure(router._policy)
    assert (await world.sent()).result is Result.DELIVERED
    assert len(world.web.visits) == 1
    assert len(host.messages) == 2


async def test_a_policy_host_without_a_good_certificate_is_not_believed(world: Any) -> None:
    await enforced(world, "other.example", names=["elsewhere.example"])
    assert (await world.sent()).result is Result.DELIVERED
    assert world.web.visits == []


async def test_a_policy_host_inside_is_not_connected_to(world: Any) -> None:
    await world.domain("shop.example")
    await world.policy("shop.example", "enforce", "other.example")
    inside = WebServer(world.authority, ["mta-sts.shop.example"], "127.0.0.251")
    inside.port, inside.pages = world.web.port, world.web.pages
    await inside.start()
    world.dns.set("mta-sts.shop.example", "A", inside.address)
    await world.start(tls=world.trust())
    assert (await world.sent()).result is Result.DELIVERED
    await inside.stop()
    assert inside.visits == world.web.visits == []


async def test_a_session_opened_for_who_asks_for_nothing_serves_nobody_who_enforces(world: Any) -> None:
    host = await world.domain("plain.example")
    await world.domain("shop.example", host=host)
    await world.policy("shop.example", "enforce", host.hostname)
    host.tls = TlsMode.SELF_SIGNED
    await world.start(tls=world.trust())
    assert (await world.sent("plain.example")).result is Result.DELIVERED
    assert (await world.sent()).bounce_class == "tls"
    host.tls = TlsMode.GOOD
    world.scheduler._pool._destinations.forget()  # it was down
    assert (await world.sent()).tls.endswith(" mta-sts")
    # The other way round is no harm.
    assert (await world.sent("plain.example")).tls.endswith(" mta-sts")
    assert host.connections == 3


async def test_without_mta_sts_nothing_is_asked(world: Any) -> None:
    await world.domain("shop.example")
    await world.policy("shop.example", "enforce", "other.example")
    tls = world.trust()
    await world.start(tls=type(tls)(authorities=tls.authorities, mta_sts=False))
    assert (await world.sent()).tls.endswith(" opportunistic")
    assert not [query for query in world.dns.queries if query.name.startswith("_mta-sts")]
