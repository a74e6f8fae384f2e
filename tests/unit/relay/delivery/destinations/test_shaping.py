"""Limits that are never exceeded, that give way when a host asks for less, and that always come back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.config import (
    ConfigError,
    Delivery,
    Plan,
    ProviderShaping,
    RelayConfig,
    Shaping,
    ShapingLimits,
    TogetherLimits,
    decode,
    encode,
)
from malote_relay.delivery.answers.complaint import Heard, heard
from malote_relay.delivery.destinations.bucket import Bucket
from malote_relay.delivery.destinations.shapes import Shape, Shapes
from malote_relay.delivery.destinations.shaping import (
    LONGEST_PAUSE_SECONDS,
    PAUSE_JITTER,
    PAUSE_SECONDS,
    RECOVERY_SECONDS,
    TROUBLES,
    Shaper,
    Throttle,
)
from malote_relay.delivery.reply import Failure, Reply

LONGEST = LONGEST_PAUSE_SECONDS * (1 + PAUSE_JITTER)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["message", "good", "slow", "put off", "refused", "wait"]),
        st.floats(min_value=0, max_value=400),
        st.integers(min_value=1, max_value=100),
    ),
    max_size=40,
)


def live(shaper: Shaper, steps: list[tuple[str, float, int]]) -> tuple[float, list[tuple[float, int]]]:
    """Live through the steps as the pool would; the time afterwards, and when messages began to how many."""
    now, rng, begun = 0.0, random.Random(1), []
    for what, seconds, number in steps:
        now += seconds
        if what == "message" and not shaper.wait(now, number):
            if shaper.open < shaper.connections(now):
                shaper.open += 1
            shaper.take(now, number)
            begun.append((now, number))
        elif what == "good":
            shaper.succeeded(now)
            shaper.open = max(0, shaper.open - 1)
        elif what == "slow":
            shaper.slow(now, "421 too much", rng)
        elif what == "put off":
            shaper.put_off(now, "451 trouble", rng)
        elif what == "refused" and shaper.open:
            shaper.refused_one_more(now)
    return now, begun


@given(STEPS, st.integers(1, 50), st.none() | st.integers(1, 600))
def test_never_more_than_configured_and_never_nothing(
    steps: list[tuple[str, float, int]], connections: int, per_minute: int | None
) -> None:
    for count in range(len(steps) + 1):
        shaper = Shaper(Shape(connections=connections, messages_per_minute=per_minute), 0.0)
        now, _ = live(shaper, steps[:count])
        assert 1 <= shaper.connections(now) <= connections
        assert shaper.open <= connections
        rate = shaper.rate(now)
        assert rate is None or rate > 0
        if per_minute is not None:
            assert rate is not None
            assert rate <= per_minute + 1e-6


@given(STEPS, st.integers(1, 600), st.integers(1, 2000))
def test_in_no_stretch_of_time_more_begins_than_the_rate_and_a_seconds_worth(
    steps: list[tuple[str, float, int]], messages: int, recipients: int
) -> None:
    shaper = Shaper(Shape(10, messages, recipients), 0.0)
    _, begun = live(shaper, steps)
    for first, (start, _) in enumerate(begun):
        for last in range(first, len(begun)):
            seconds = begun[last][0] - start
            assert last - first + 1 <= seconds * messages / 60 + max(1.0, messages / 60) + 1e-6
            # A message to many may empty the bucket and leave a debt: it is the last before that is paid.
            sent = sum(count for _, count in begun[first:last])
            assert sent <= seconds * recipients / 60 + max(1.0, recipients / 60) + 1e-6


@given(STEPS, st.integers(1, 50), st.none() | st.integers(1, 600))
def test_whatever_happened_it_is_as_configured_again_after_some_minutes(
    steps: list[tuple[str, float, int]], connections: int, per_minute: int | None
) -> None:
    shaper = Shaper(Shape(connections=connections, messages_per_minute=per_minute), 0.0)
    now, _ = live(shaper, steps)
    now += LONGEST + RECOVERY_SECONDS
    assert shaper.connections(now) == connections
    assert shaper.rate(now) == (None if per_minute is None else pytest.approx(per_minute))
    assert not shaper.slowed(now)


@given(STEPS, st.integers(1, 50), st.none() | st.integers(1, 600), st.integers(1, 100))
def test_a_message_is_let_through_within_a_bounded_time_whatever_happened(
    steps: list[tuple[str, float, int]], connections: int, per_minute: int | None, recipients: int
) -> None:
    shaper = Shaper(Shape(connections=connections, messages_per_minute=per_minute, recipients_per_minute=60), 0.0)
    now, _ = live(shaper, steps)
    wait = shaper.wait(now, recipients)
    assert wait <= LONGEST + 60 * 60
    assert shaper.wait(now + wait, recipients) <= 1e-6


@given(st.floats(0.01, 100), st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 30)), max_size=50))
def test_a_bucket_gives_out_no_more_than_came_in(rate: float, wishes: list[tuple[float, float]]) -> None:
    bucket = Bucket(rate, 0.0)
    now = spent = last = 0.0
    for seconds, amount in wishes:
        now += seconds
        if not bucket.wait(now, amount):
            bucket.spend(now, amount)
            spent += amount
            last = amount
    assert spent - last <= now * rate + bucket.burst + 1e-6


def test_a_quiet_hour_saves_nothing_up() -> None:
    bucket = Bucket(2.0, 0.0)
    spent = 0
    while not bucket.wait(3600.0):
        bucket.spend(3600.0)
        spent += 1
    assert spent == 2
    assert bucket.wait(3600.0) == pytest.approx(0.5)


def test_a_host_that_asks_for_less_is_left_alone_and_then_gets_half() -> None:
    shaper = Shaper(Shape(connections=20), 0.0)
    shaper.open = 8
    for second in range(60):
        shaper.take(float(second), 1)
        shaper.take(float(second), 1)
    assert shaper.slow(60.0, "421 too much", random.Random(1))
    assert shaper.connections(60.0) == 4
    assert shaper.rate(60.0) == pytest.approx(60, rel=0.1)
    pause = shaper.paused_for(60.0)
    assert PAUSE_SECONDS * (1 - PAUSE_JITTER) <= pause <= PAUSE_SECONDS * (1 + PAUSE_JITTER)
    assert shaper.wait(60.0) >= pause


def test_what_many_connections_hear_at_the_same_time_counts_once() -> None:
    shaper = Shaper(Shape(connections=16), 0.0)
    shaper.open = 16
    assert [shaper.slow(1.0 + number / 10, "421", random.Random(1)) for number in range(16)].count(True) == 1
    assert shaper.connections(2.0) == 8


def test_it_is_left_alone_for_longer_each_time_it_asks_again() -> None:
    shaper, rng, now, pauses = Shaper(Shape(connections=10), 0.0), random.Random(1), 0.0, []
    for _ in range(9):
        shaper.slow(now, "421", rng)
        pauses.append(shaper.paused_for(now))
        now += pauses[-1]
    assert pauses[2] > 2 * pauses[0]
    assert max(pauses) <= LONGEST
    shaper.slow(now + RECOVERY_SECONDS, "421", rng)
    assert shaper.paused_for(now + RECOVERY_SECONDS) <= PAUSE_SECONDS * (1 + PAUSE_JITTER)


def test_messages_it_takes_bring_it_back_sooner_than_time_alone() -> None:
    with_mail, without = (Throttle(10.0, 1.0) for _ in range(2))
    for throttle in (with_mail, without):
        throttle.set(0.0, 1.0)
    for second in range(60):
        with_mail.raised(float(second))
    assert with_mail.value(60.0) == pytest.approx(5.0)
    assert without.value(60.0) == pytest.approx(3.0)


def test_without_adapting_only_the_configured_limits_hold() -> None:
    shaper = Shaper(Shape(connections=10), 0.0, adaptive=False)
    shaper.open = 10
    assert not shaper.slow(0.0, "421", random.Random(1))
    assert shaper.connections(0.0) == 10


def test_a_destination_that_puts_everything_off_is_left_alone_until_it_takes_something() -> None:
    shaper, rng = Shaper(Shape(connections=10), 0.0), random.Random(1)
    assert [shaper.put_off(0.0, "451 4.3.0", rng) for _ in range(TROUBLES)] == [False] * (TROUBLES - 1) + [True]
    now = shaper.paused_for(0.0) + 1
    assert shaper.put_off(now, "451 4.3.0", rng)
    now += shaper.paused_for(now) + 1
    shaper.succeeded(now)
    assert not shaper.put_off(now, "451 4.3.0", rng)
    assert "everything is put off: 451 4.3.0" in shaper.why


def test_new_limits_hold_at_once_and_what_was_slowed_stays_so() -> None:
    shaper = Shaper(Shape(connections=10), 0.0)
    shaper.open = 4
    shaper.slow(0.0, "421", random.Random(1))
    shaper.reshape(Shape(connections=20, messages_per_minute=600), 1.0)
    assert shaper.connections(1.0) == 2
    assert 0 < (shaper.rate(1.0) or 0) < 100
    shaper.reshape(Shape(connections=1), 2.0)
    assert shaper.connections(2.0) == 1
    shaper.forgive()
    assert (shaper.wait(3.0), shaper.slowed(3.0)) == (0.0, False)


GOOD, GONE = Reply(250, ("2.0.0 Taken",)), Reply(550, ("5.1.1 No such user",))


@pytest.mark.parametrize(
    ("answers", "meaning"),
    [
        ([GOOD], Heard.SERVED),
        ([GONE], Heard.SERVED),
        ([Reply(421, ("4.7.0 [TSS04] Messages temporarily deferred",))], Heard.TOO_FAST),
        ([Reply(421, ("4.7.28 unusual rate of unsolicited mail",))], Heard.TOO_FAST),
        ([Reply(451, ("4.7.500 Server busy. Please try again later: too many messages",))], Heard.TOO_FAST),
        ([Reply(450, ("4.7.1 Too many connections from your host",))], Heard.TOO_FAST),
        ([Reply(421, ("4.3.2 closing for maintenance",))], Heard.TOO_FAST),
        ([Failure("421 4.3.2 Too busy (mx.a.example[192.0.2.1], greeting)", "")], Heard.TOO_FAST),
        ([Reply(452, ("4.5.3 Too many recipients",)), GOOD], Heard.SERVED),
        ([Reply(450, ("4.2.1 The user is receiving mail at too high a rate. rate limit",))], Heard.NOTHING),
        ([Reply(451, ("4.7.1 Greylisted, come back later",))], Heard.NOTHING),
        ([Reply(452, ("4.2.2 Mailbox full",))], Heard.NOTHING),
        ([Reply(451, ("4.7.1 Greylisted",)), Reply(421, ("too many connections",))], Heard.TOO_FAST),
        ([Failure("451 4.4.2 mx.a.example did not answer within 60 s (MAIL)", "timeout")], Heard.PUT_OFF),
        ([Reply(451, ("4.7.5 must issue a STARTTLS first",))], Heard.PUT_OFF),
    ],
)
def test_what_answers_say_about_the_destination(answers: list[Reply | Failure], meaning: Heard) -> None:
    assert heard(answers)[0] is meaning


def test_a_provider_may_say_it_in_words_of_its_own() -> None:
    answers = [Reply(451, ("MI:SFQ 126 mx4",))]
    assert heard(answers)[0] is Heard.PUT_OFF
    assert heard(answers, "126mx01.mxmail.netease.com")[0] is Heard.TOO_FAST


# Which limits hold for whom.


def shaped(shaping: Shaping, domain: str, destination: str, connections: int = 10) -> Shape:
    return Shapes(shaping, connections).of(domain, destination).shape


def test_the_narrowest_rule_that_says_something_holds() -> None:
    shaping = Shaping(
        default=ShapingLimits(messages_per_minute=600),
        providers={"google": ProviderShaping(messages_per_minute=120, together=TogetherLimits(connections=7))},
        destinations={
            "partner.example": ShapingLimits(connections=2),
            "mail.host.example": ShapingLimits(recipients_per_message=5),
            "host.example": ShapingLimits(recipients_per_message=9),
        },
    )
    assert shaped(shaping, "a.example", "mx.a.example") == Shape(connections=10, messages_per_minute=600)
    google = Shapes(shaping, 10).of("a.example", "alt1.aspmx.l.google.com,aspmx.l.google.com")
    assert (google.provider, google.together) == ("google", Shape(connections=7))
    assert google.shape == Shape(5, 120, messages_per_connection=50, recipients_per_message=100)
    partner = Shapes(shaping, 10).of("partner.example", "aspmx.l.google.com")
    assert partner.entry == "partner.example"
    assert (partner.shape.connections, partner.shape.messages_per_minute, partner.provider) == (2, 120, "google")
    assert shaped(shaping, "a.example", "mx1.mail.host.example").recipients_per_message == 5
    assert shaped(shaping, "a.example", "mx1.host.example").recipients_per_message == 9
    assert shaped(shaping, "host.example.a", "mx.other-host.example").recipients_per_message is None


def test_who_allows_little_for_everybody_gives_a_known_provider_no_more_unless_it_says_so() -> None:
    assert shaped(Shaping(), "gmail.com", "gmail-smtp-in.l.google.com", connections=2).connections == 2
    said = Shaping(providers={"google": ProviderShaping(connections=8)})
    assert shaped(said, "gmail.com", "gmail-smtp-in.l.google.com", connections=2).connections == 8


def test_a_provider_that_nobody_knows_is_refused_with_what_could_be_written() -> None:
    with pytest.raises(ConfigError, match=r"'gogle' is no known provider: write one of google, outlook"):
        Shapes(Shaping(providers={"gogle": ProviderShaping()}), 10)


def test_a_destination_that_is_no_name_is_refused_when_the_configuration_is_read() -> None:
    def config(name: str) -> bytes:
        shaping = Shaping(destinations={name: ShapingLimits(connections=1)})
        return encode(
            RelayConfig(
                tenant="acme",
                hostname="relay.example",
                plan=Plan(name="p", messages_per_hour=10),
                delivery=Delivery(helo_name="out.example", shaping=shaping),
            )
        )

    assert decode(config("dest.example")).delivery.shaping.destinations["dest.example"].connections == 1
    for name in ("", "Dest.example", "dest.example.", "*.example", "a b"):
        with pytest.raises(ConfigError, match=r"delivery\.shaping\.destinations"):
            decode(config(name))
