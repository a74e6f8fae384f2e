"""What is refused, and in which words: policy, senders, the hour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from malote_dev.mailworld.mailboxes import Mode
from malote_relay.config import OverLimitReply, SenderMode, UnknownSender


async def test_while_submission_is_closed_a_client_reads_why(
    start: Callable[[], Any], site: Any, compose: Any
) -> None:
    site.change(submission={"open": False, "reason": "the invoice is not paid"})
    relay = await start()
    sent = await relay.send(compose())
    assert str(sent) == "550 5.7.1 sending is not open yet: the invoice is not paid"
    assert relay.counted("malote_messages_refused_total", reason="submission_closed") == 1


async def test_a_suspended_account_is_refused(relay: Any, compose: Any) -> None:
    sent = await relay.send(compose(), username="old@acme")
    assert str(sent) == "550 5.7.1 the account old@acme is suspended: ask your platform"


async def test_a_wrong_password_is_refused(relay: Any, compose: Any) -> None:
    sent = await relay.send(compose(), password="guess")
    assert str(sent).startswith("535 5.7.8")


@pytest.mark.parametrize(
    ("sender", "words"),
    [
        ("ana@other.example", "other.example is not a sending domain of acme"),
        ("ana@sub.acme.example", "sub.acme.example is not a sending domain of acme"),
        ("ana@new.acme.example", "new.acme.example is not verified: its DKIM record is missing"),
    ],
)
async def test_a_sender_of_a_domain_that_is_not_verified_is_refused(
    relay: Any, compose: Any, sender: str, words: str
) -> None:
    sent = await relay.send(compose(), sender=sender)
    assert str(sent) == f"550 5.7.1 the sender <{sender}> is refused: {words}"
    assert sent.reply.command == "MAIL"


@pytest.mark.parametrize(
    "header",
    [
        "From: ceo@other.example\r\n",
        "From: Ana <ana@acme.example>\r\nSender: x@other.example\r\n",
        "From: Ana <ana@acme.example>\r\nResent-From: x@other.example\r\n",
        "From: Ana <ana@acme.example>\r\nFrom: x@other.example\r\n",
        "From: Ana <ana@acme.example>, bia@acme.example\r\n",
        "From: x@new.acme.example\r\n",
        "Subject: nobody\r\n",
    ],
)
async def test_a_header_from_that_is_not_the_tenants_is_refused(relay: Any, compose: Any, header: str) -> None:
    sent = await relay.send(compose(header=header))
    assert sent.reply.code == 550
    assert sent.reply.command == "DATA"
    assert relay.counted("malote_messages_refused_total", reason="header_from") == 1


async def test_domains_are_compared_without_regard_to_case(relay: Any, compose: Any) -> None:
    sent = await relay.send(compose(header="FROM: Ana <ana@ACME.Example>\r\n"), sender="ana@Acme.EXAMPLE")
    assert sent.accepted, sent


async def test_bulk_mail_needs_one_click_unsubscription(relay: Any, compose: Any) -> None:
    sent = await relay.send(compose(), username="news@acme")
    assert "RFC 8058" in str(sent)
    assert str(sent).startswith("550 5.7.1")
    header = (
        "From: news@acme.example\r\nList-Unsubscribe: <mailto:u@acme.example>,\r\n <https://acme.example/u?x=1>\r\n"
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    )
    sent = await relay.send(compose(header=header), username="news@acme", sender="news@acme.example")
    assert sent.accepted, sent


async def test_the_null_sender_is_taken_when_header_from_is_verified(relay: Any, compose: Any, world: Any) -> None:
    assert (await relay.send(compose(), sender="")).accepted
    [arrived] = await world.mx.wait_for(1)
    assert arrived.mail_from == ""
    assert not (await relay.send(compose(header="From: x@other.example\r\n"), sender="")).accepted


# Senders.


async def test_a_call_out_goes_on_to_the_hosts_address_of_the_other_family(
    relay: Any, world: Any, compose: Any
) -> None:
    dead = world.provider.address.rpartition(".")[0] + ".99"
    world.dns.set("mx.acme.example", "AAAA", f"::ffff:{dead}")  # comes first, and nobody is there
    sent = await relay.send(compose(), sender="nobody@acme.example")
    assert str(sent).startswith("550 5.1.0 the sender <nobody@acme.example> does not exist")


async def test_a_sender_that_does_not_exist_is_refused_with_the_hosts_words(
    relay: Any, compose: Any, world: Any
) -> None:
    sent = await relay.send(compose(), sender="nobody@acme.example")
    assert str(sent).startswith(
        "550 5.1.0 the sender <nobody@acme.example> does not exist: mx.acme.example says: 550 5.1.1"
    )
    assert sent.reply.command == "MAIL"
    assert relay.counted("malote_callouts_total", result="absent") == 1
    [probe] = world.provider.probes
    assert probe.helo == "out.acme.smtp.example"


async def test_a_header_from_that_does_not_exist_is_refused_after_data(relay: Any, compose: Any) -> None:
    sent = await relay.send(compose(header="From: nobody@acme.example\r\n"))
    assert str(sent).startswith("550 5.1.0 the sender <nobody@acme.example> does not exist")
    assert sent.reply.command == "DATA"


async def test_a_sender_is_asked_for_once(relay: Any, compose: Any, world: Any) -> None:
    for _ in range(3):
        assert (await relay.send(compose())).accepted
    assert [probe.recipient for probe in world.provider.probes] == ["ana@acme.example"]
    await relay.send(compose(), sender="bia@acme.example")
    assert [probe.recipient for probe in world.provider.probes] == ["ana@acme.example", "bia@acme.example"]


@pytest.mark.parametrize("mode", [Mode.BLOCK_PROBES, Mode.DEFER_ALL, Mode.UNREACHABLE])
async def test_not_knowing_is_not_absence(
    start: Callable[[], Any], site: Any, compose: Any, world: Any, mode: Mode
) -> None:
    await world.provider.set_mode(mode)
    relay = await start()
    assert (await relay.send(compose(), sender="nobody@acme.example")).accepted
    site.change(sender_verification={"unknown": UnknownSender.DEFER})
    await relay.relay._watcher.look()
    sent = await relay.send(compose(), sender="nobody@acme.example")
    assert str(sent).startswith("451 4.1.8 whether the sender <nobody@acme.example> exists could not be established")


async def test_with_a_list_only_declared_senders_may_send(
    start: Callable[[], Any], site: Any, compose: Any, world: Any
) -> None:
    site.change(sender_verification={"mode": SenderMode.LIST, "senders": ("Ana@acme.example",)})
    relay = await start()
    assert (await relay.send(compose())).accepted
    sent = await relay.send(compose(), sender="bia@acme.example")
    assert str(sent) == "550 5.7.1 the sender <bia@acme.example> is not among those declared for this tenant"
    assert not world.provider.probes


async def test_call_outs_never_reach_into_networks_that_are_not_allowed(
    start: Callable[[], Any], site: Any, compose: Any, world: Any
) -> None:
    site.change(delivery={"allow_networks": ()})
    relay = await start()
    assert (await relay.send(compose())).accepted
    assert not world.provider.commands
    assert relay.counted("malote_callouts_total", result="unknown") == 1


async def test_call_outs_leave_from_an_address_and_under_a_name_of_their_own(
    start: Callable[[], Any], site: Any, compose: Any, world: Any
) -> None:
    world.dns.set("mx.acme.example", "AAAA", "::1")
    site.change(
        delivery={"allow_networks": ("127.0.0.0/8", "::1/128")},
        sender_verification={"source_address": "127.0.0.11", "helo_name": "probe.acme.example"},
    )
    relay = await start()
    assert (await relay.send(compose())).accepted
    [probe] = world.provider.probes
    assert probe.peer.startswith("127.0.0.11")
    assert probe.helo == "probe.acme.example"
    assert relay.counted("malote_callouts_total", result="present") == 1


async def test_a_host_whose_first_address_does_not_answer_is_asked_at_the_other(
    start: Callable[[], Any], site: Any, compose: Any, world: Any
) -> None:
    world.dns.set("mx.acme.example", "AAAA", "::1")
    site.change(delivery={"allow_networks": ("127.0.0.0/8", "::1/128")})
    relay = await start()
    assert (await relay.send(compose(), sender="nobody@acme.example")).reply.code == 550


async def test_a_source_address_that_reaches_no_host_leaves_the_sender_unknown(
    start: Callable[[], Any], site: Any, compose: Any, world: Any
) -> None:
    site.change(sender_verification={"source_address": "::1"})
    relay = await start()
    assert (await relay.send(compose())).accepted
    assert not world.provider.commands
    assert relay.counted("malote_callouts_total", result="unknown") == 1


async def test_a_restart_does_not_ask_for_all_senders_again(
    start: Callable[[], Any], compose: Any, world: Any
) -> None:
    first = await start()
    assert (await first.send(compose())).accepted
    await first.stop()
    assert (await (await start()).send(compose())).accepted
    assert len(world.provider.probes) == 1


# The hour.


@pytest.mark.parametrize(
    ("policy", "answer"), [(OverLimitReply.PERMANENT, "550 5.7.1"), (OverLimitReply.TEMPORARY, "451 4.7.1")]
)
async def test_beyond_limit_and_tolerance_each_recipient_reads_why(
    start: Callable[[], Any], site: Any, compose: Any, world: Any, policy: OverLimitReply, answer: str
) -> None:
    site.begin_an_hour()
    site.change(plan={"messages_per_hour": 5, "over_limit_reply": policy})
    relay = await start()
    sent = await relay.send(compose(), to=tuple(f"r{number}@dest.example" for number in range(8)))
    assert sent.accepted
    assert set(sent.refused) == {"r6@dest.example", "r7@dest.example"}
    for refusal in sent.refused.values():
        assert str(refusal).startswith(
            f"{answer} hourly limit reached: plan SMTP I takes 5 accepted recipients per clock hour (UTC) "
            "and 1 more held for the next hour; capacity returns at "
        )
    messages = await world.mx.wait_for(1)
    assert sum(len(message.recipients) for message in messages) == 5
    usage = relay.relay._window.usage(relay.relay._clock.now())
    assert (usage.charged, usage.held, usage.reserved) == (5, 1, 0)


async def test_held_mail_leaves_first_when_its_hour_comes(
    start: Callable[[], Any], site: Any, compose: Any, world: Any
) -> None:
    site.begin_an_hour()
    site.change(plan={"messages_per_hour": 5})
    relay = await start()
    await relay.send(compose(), to=tuple(f"r{number}@dest.example" for number in range(6)))
    await world.mx.wait_for(1)
    assert not any("r5@dest.example" in message.recipients for message in world.mx.messages)
    site.change(rehearsal={"clock_offset_seconds": site.config.rehearsal.clock_offset_seconds + 3600})
    await relay.relay._watcher.look()
    messages = await world.mx.wait_for(2)
    assert messages[1].recipients == ("r5@dest.example",)
    assert (await relay.send(compose("later"), to=("late@dest.example",))).accepted
    usage = relay.relay._window.usage(relay.relay._clock.now())
    assert (usage.charged, usage.held) == (2, 0)


async def test_a_refused_message_gives_its_units_back(start: Callable[[], Any], site: Any, compose: Any) -> None:
    site.begin_an_hour()
    site.change(plan={"messages_per_hour": 1, "tolerance_percent": 0})
    relay = await start()
    assert not (await relay.send(compose(header="From: x@other.example\r\n"))).accepted
    assert (await relay.send(compose())).accepted
    assert not (await relay.send(compose())).accepted
