"""TLS reports: counted by day, told to who asks, by mail and HTTPS, whatever is wrong with that domain's TLS."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from malote_dev.mailworld.behaviour import TlsMode
from malote_dev.mailworld.certificates import tlsa
from malote_dev.mailworld.web import Page
from malote_relay.config import TlsReports
from malote_relay.delivery.tls.reporter import SPREAD_SECONDS

DAY = 86_400


@pytest.fixture(autouse=True)
def at_noon(world: Any) -> None:
    """No day ends during a test but by its own doing."""
    world.clock.ahead = (DAY // 2 - time.time()) % DAY


async def sign(domain: str, content: bytes) -> bytes:
    return f"DKIM-Signature: d={domain}\r\n".encode()


async def sent(world: Any, *addresses: str) -> None:
    for address in addresses:
        count = len(world.outcomes) + 1
        await world.send(address)
        await world.ended(count)


async def next_day(world: Any) -> None:
    """Write down what was counted, and let the day end for everyone."""
    await world.scheduler._security.tell()
    now = world.clock()
    world.clock.ahead += (now // DAY + 1) * DAY - now + SPREAD_SECONDS
    await world.scheduler._security.tell()


def read(content: bytes) -> Any:
    document = email.message_from_bytes(content, policy=email.policy.SMTP)
    _, attached = document.iter_parts()
    return json.loads(gzip.decompress(attached.get_content()))


async def test_the_domain_that_asks_is_told_at_the_end_of_the_day_and_no_other(world: Any) -> None:
    mx, other = await world.domain("shop.example"), await world.domain("other.example")
    world.dns.set("_smtp._tls.shop.example", "TXT", "v=TLSRPTv1; rua=mailto:tls@shop.example")
    await world.start(tls_reports=TlsReports(organization="Acme", contact="tls@acme.example"), sign=sign)
    await sent(world, "bia@shop.example", "rui@shop.example", "eva@other.example")
    world.scheduler._pool.close_idle()
    mx.tls = TlsMode.NONE
    await sent(world, "bia@shop.example")
    today = int(world.clock() // DAY)
    await next_day(world)
    message = (await mx.wait_for(4))[3]
    assert (message.mail_from, message.recipients) == ("", ("tls@shop.example",))
    assert message.content.startswith(b"DKIM-Signature: d=out.relay.example\r\nFrom: <noreply-")
    document = read(message.content)
    assert document["organization-name"] == "Acme"
    assert document["date-range"]["start-datetime"] == time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(today * DAY))
    (policy,) = document["policies"]
    assert policy["policy"] == {"policy-type": "no-policy-found", "policy-domain": "shop.example"}
    assert policy["summary"] == {"total-successful-session-count": 1, "total-failure-session-count": 1}
    (failure,) = policy["failure-details"]
    assert failure["result-type"] == "starttls-not-supported"
    assert (failure["receiving-mx-hostname"], failure["receiving-ip"]) == (mx.hostname, mx.address)
    assert len(other.messages) == 1


async def test_each_report_leaves_at_a_time_of_its_own_within_hours_of_midnight(world: Any) -> None:
    mx = await world.domain("shop.example")
    world.dns.set("_smtp._tls.shop.example", "TXT", "v=TLSRPTv1; rua=mailto:tls@shop.example", ttl=0)
    await world.start(sign=sign)
    await sent(world, "bia@shop.example")
    security, today = world.scheduler._security, int(world.clock() // DAY)
    await security.tell()
    times = {security._reporter._due(today, f"d{number}.example") for number in range(20)}
    assert len(times) > 15, "but for one or another that falls together by chance"
    assert all(0 <= at - (today + 1) * DAY < SPREAD_SECONDS for at in times)
    due = security._reporter._due(today, "shop.example")
    world.clock.ahead += due - world.clock() - 60
    await security.tell()
    await world.wait(lambda: world.scheduler.in_hand == 0)
    assert len(mx.messages) == 1
    world.clock.ahead += 120
    await security.tell()
    await mx.wait_for(2)


async def test_a_report_is_counted_nowhere_and_never_reported_about(world: Any) -> None:
    mx = await world.domain("shop.example")
    world.dns.set("_smtp._tls.shop.example", "TXT", "v=TLSRPTv1; rua=mailto:tls@shop.example", ttl=0)
    await world.start(sign=sign)
    await sent(world, "bia@shop.example")
    await next_day(world)
    await mx.wait_for(2)
    await world.wait(lambda: world.scheduler.in_hand == 0)
    assert len(world.outcomes) == 1
    await next_day(world)
    assert len(mx.messages) == 2
    assert await world.store.read(lambda db: db.execute("SELECT count(*) FROM tls_results").fetchone()) == (0,)


@pytest.mark.parametrize("why", ["mta-sts", "dane"])
async def test_a_report_about_broken_tls_is_delivered_all_the_same(world: Any, why: str) -> None:
    mx = await world.domain("shop.example")
    world.dns.set("_smtp._tls.shop.example", "TXT", "v=TLSRPTv1; rua=mailto:tls@shop.example", ttl=0)
    if why == "dane":
        world.validating = True
        world.dns.sign("shop.example")
        certificate, _ = world.authority.issue([mx.hostname])
        world.dns.set(f"_{mx.port}._tcp.{mx.hostname}", "TLSA", tlsa(certificate))
    else:
        await world.policy("shop.example", "enforce", mx.hostname)
        mx.tls = TlsMode.EXPIRED
    await world.start(sign=sign, tls=world.trust())
    await sent(world, "bia@shop.example")
    assert mx.messages == []
    await next_day(world)
    (message, *_) = await mx.wait_for(1)
    (policy,) = read(message.content)["policies"]
    assert policy["policy"]["policy-type"] == ("tlsa" if why == "dane" else "sts")
    assert policy["policy"]["policy-domain"] == (mx.hostname if why == "dane" else "shop.example")
    assert policy["summary"]["total-failure-session-count"] >= 1
    kind = policy["failure-details"][0]["result-type"]
    assert kind == ("validation-failure" if why == "dane" else "certificate-expired")


async def test_testing_tells_what_enforcing_would_have_kept_back(world: Any) -> None:
    mx = await world.domain("shop.example")
    world.dns.set("_smtp._tls.shop.example", "TXT", "v=TLSRPTv1; rua=mailto:tls@shop.example", ttl=0)
    await world.policy("shop.example", "testing", mx.hostname)
    mx.tls = TlsMode.WRONG_NAME
    await world.start(sign=sign, tls=world.trust())
    await sent(world, "bia@shop.example")
    assert len(mx.messages) == 1
    await next_day(world)
    (policy,) = read((await mx.wait_for(2))[1].content)["policies"]
    assert policy["policy"]["policy-string"][1] == "mode: testing"
    assert policy["summary"] == {"total-successful-session-count": 0, "total-failure-session-count": 1}
    assert policy["failure-details"][0]["result-type"] == "certificate-host-mismatch"


async def test_a_policy_that_is_not_to_be_had_is_told(world: Any) -> None:
    mx = await world.domain("shop.example")
    world.dns.set("_smtp._tls.shop.example", "TXT", "v=TLSRPTv1; rua=mailto:tls@shop.example", ttl=0)
    await world.policy("shop.example", "enforce", mx.hostname)
    world.web.pages["mta-sts.shop.example"] = Page(b"nonsense")
    await world.start(sign=sign, tls=world.trust())
    await sent(world, "bia@shop.example")
    await next_day(world)
    (policy,) = read((await mx.wait_for(2))[1].content)["policies"]
    assert policy["failure-details"][0]["result-type"] == "sts-policy-invalid"


async def test_records_none_of_which_can_be_used_are_told_of_though_mail_goes(world: Any) -> None:
    """Nobody else would tell: RFC 8460 section 4.3.2.1 has a name for it, tlsa-invalid."""
    world.validating = True
    mx = await world.domain("shop.example")
    world.dns.set("_smtp._tls.shop.example", "TXT", "v=TLSRPTv1; rua=mailto:tls@shop.example", ttl=0)
    world.dns.sign("shop.example")
    world.dns.set(f"_{mx.port}._tcp.{mx.hostname}", "TLSA", "1 1 1 " + "ab" * 32)
    await world.start(sign=sign)
    await sent(world, "bia@shop.example")
    assert len(mx.messages) == 1
    await next_day(world)
    (policy,) = read((await mx.wait_for(2))[1].content)["policies"]
    assert (policy["policy"]["policy-type"], policy["policy"]["policy-domain"]) == ("tlsa", mx.hostname)
    assert policy["summary"] == {"total-successful-session-count": 0, "total-failure-session-count": 1}
    assert policy["failure-details"][0]["result-type"] == "tlsa-invalid"


async def test_reports_by_https_are_tried_again_until_they_are_taken(world: Any) -> None:
    await world.domain("shop.example")
    web = await world.policy("unused.example", "none", names=["reports.example"])
    web.pages["reports.example"] = Page(b"", 503)
    world.dns.set("reports.example", "A", web.address)
    rua = f"https://reports.example:{web.port}/v1/tlsrpt?x=y"
    world.dns.set("_smtp._tls.shop.example", "TXT", f"v=TLSRPTv1; rua={rua}", ttl=0)
    await world.start(sign=sign, tls=world.trust(), tls_reports=TlsReports(ports=(web.port,)))
    await sent(world, "bia@shop.example")
    await next_day(world)
    await world.scheduler._security.tell()
    assert len(web.visits) == 1  # not again at once
    web.pages["reports.example"] = Page(b"", 201)
    world.clock.ahead += 3601
    await world.scheduler._security.tell()
    assert [visit.request for visit in web.visits] == ["POST /v1/tlsrpt?x=y"] * 2
    assert web.visits[1].headers["content-type"] == "application/tlsrpt+gzip"
    first, second = (json.loads(gzip.decompress(visit.body)) for visit in web.visits)
    assert first == second
    world.clock.ahead += 3601
    await world.scheduler._security.tell()
    assert len(web.visits) == 2


async def test_without_a_key_no_report_leaves_by_mail_until_there_is_one_and_that_is_said_once(
    world: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    key = b""

    async def sign_with_it(domain: str, content: bytes) -> bytes:
        return key

    mx, other = await world.domain("shop.example"), await world.domain("other.example")
    for name in ("shop.example", "other.example"):
        world.dns.set(f"_smtp._tls.{name}", "TXT", f"v=TLSRPTv1; rua=mailto:tls@{name}", ttl=0)
    await world.start(sign=sign_with_it)
    await sent(world, "bia@shop.example", "eva@other.example")
    await next_day(world)
    world.clock.ahead += 3601
    await world.scheduler._security.tell()
    assert (len(mx.messages), len(other.messages)) == (1, 1), "only what was sent"
    assert capfd.readouterr().out.count("TLS reports leave by HTTPS only") == 1
    key = b"DKIM-Signature: d=out.relay.example\r\n"
    world.clock.ahead += 3601
    await world.scheduler._security.tell()
    assert (await mx.wait_for(2))[1].content.startswith(key)


async def test_without_a_key_a_report_by_https_leaves_all_the_same(world: Any) -> None:
    await world.domain("shop.example")
    web = await world.policy("unused.example", "none", names=["reports.example"])
    web.pages["reports.example"] = Page(b"", 201)
    world.dns.set("reports.example", "A", web.address)
    rua = f"mailto:tls@shop.example,https://reports.example:{web.port}/v1"
    world.dns.set("_smtp._tls.shop.example", "TXT", f"v=TLSRPTv1; rua={rua}", ttl=0)
    await world.start(tls=world.trust(), tls_reports=TlsReports(ports=(web.port,)))
    await sent(world, "bia@shop.example")
    await next_day(world)
    world.clock.ahead += 3601
    await world.scheduler._security.tell()
    assert [visit.request for visit in web.visits] == ["POST /v1"], "once, and the mail is not waited for"


async def test_a_domain_cannot_have_reports_posted_to_any_port_it_likes(world: Any) -> None:
    mx = await world.domain("shop.example")
    web = await world.policy("unused.example", "none", names=["reports.example"])
    web.pages["reports.example"] = Page(b"", 201)
    world.dns.set("reports.example", "A", web.address)
    rua = f"rua=https://reports.example:{web.port}/"
    world.dns.set("_smtp._tls.shop.example", "TXT", f"v=TLSRPTv1; {rua}", ttl=0)
    await world.start(sign=sign, tls=world.trust())
    await sent(world, "bia@shop.example")
    with capture_logs() as log:
        await next_day(world)
        await world.scheduler._security.tell()
    (said,) = [entry for entry in log if entry["event"] == "no TLS report"]
    assert (said["domain"], said["to"]) == ("shop.example", rua.removeprefix("rua="))
    assert said["error"].startswith(f"port {web.port} is not among those that reports are posted to")
    assert web.visits == []
    assert await world.store.read(lambda db: db.execute("SELECT count(*) FROM tls_results").fetchone()) == (0,)
    # Where it wants them elsewhere too they go there.
    world.dns.set("_smtp._tls.shop.example", "TXT", f"v=TLSRPTv1; {rua},mailto:tls@shop.example", ttl=0)
    world.scheduler._pool.close_idle()  # reports count sessions
    await sent(world, "bia@shop.example")
    await next_day(world)
    assert (await mx.wait_for(3))[2].recipients == ("tls@shop.example",)
    assert web.visits == []


async def test_a_report_waits_over_a_restart_and_is_given_up_after_days(world: Any) -> None:
    mx = await world.domain("shop.example")
    world.dns.set("_smtp._tls.shop.example", "TXT", "v=TLSRPTv1; rua=mailto:tls@shop.example", ttl=0)
    await world.start(sign=sign)
    await sent(world, "bia@shop.example")
    await world.stop()  # writes down what was counted
    await world.reopen()
    world.clock.ahead += DAY + SPREAD_SECONDS
    await world.start(sign=sign)
    world.dns.fail("_smtp._tls.shop.example", "SERVFAIL")
    await world.scheduler._security.tell()
    assert len(mx.messages) == 1
    world.dns.fail("_smtp._tls.shop.example", None)
    world.clock.ahead += 3601
    await world.scheduler._security.tell()
    await mx.wait_for(2)


async def test_without_reports_nothing_is_counted_or_asked(world: Any) -> None:
    await world.domain("shop.example")
    world.dns.set("_smtp._tls.shop.example", "TXT", "v=TLSRPTv1; rua=mailto:tls@shop.example", ttl=0)
    await world.start(tls_reports=TlsReports(enabled=False))
    await sent(world, "bia@shop.example")
    await next_day(world)
    assert not [query for query in world.dns.queries if query.name.startswith("_smtp._tls")]
