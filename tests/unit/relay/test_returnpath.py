from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.config import Bounces, ConfigError, Delivery, Domain, Plan, RelayConfig
from malote_relay.returnpath import NONE, NotOurs, ReturnPaths, Token, mark_of
from malote_relay.store.names import new_message_id

DAY = 86_400.0
NOW = 1_800_000_000.0
MESSAGE = new_message_id(NOW)
SECRET = b"a secret of the tenant's"
PATHS = ReturnPaths([SECRET], {"Acme.example": "bounces.acme.example"}, 14)
MADE = PATHS.make("app@acme.example", MESSAGE, "bia@shop.example", NOW)


def test_a_return_path_names_message_and_recipient_and_fits_an_envelope() -> None:
    assert MADE.endswith("@bounces.acme.example")
    assert MADE.lower() == MADE
    assert len(MADE.partition("@")[0]) <= 64
    assert PATHS.read(MADE, NOW) == Token(MESSAGE, mark_of("bia@shop.example"))


def test_it_survives_a_change_of_case() -> None:
    assert PATHS.read(MADE.upper(), NOW) == PATHS.read(MADE, NOW)


def test_it_is_the_same_at_every_attempt_and_another_for_every_recipient() -> None:
    assert PATHS.make("app@acme.example", MESSAGE, "Bia@shop.example", NOW) == MADE
    assert PATHS.make("app@acme.example", MESSAGE, "rui@shop.example", NOW) != MADE


def test_other_reverse_paths_stay_as_they_are() -> None:
    for sender, message in (
        ("app@other.example", MESSAGE),
        ("", MESSAGE),
        ("app@acme.example", "an-id-of-another-form"),
    ):
        assert PATHS.make(sender, message, "bia@shop.example", NOW) == sender
        assert not PATHS.applies(sender, message)
    assert NONE.make("app@acme.example", MESSAGE, "bia@shop.example", NOW) == "app@acme.example"


@pytest.mark.parametrize("place", range(len(MADE.partition("@")[0])))
def test_no_character_can_be_changed(place: int) -> None:
    changed = "3" if MADE[place] != "3" else "4"
    with pytest.raises(NotOurs):
        PATHS.read(MADE[:place] + changed + MADE[place + 1 :], NOW)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "b-@bounces.acme.example",
        "postmaster@bounces.acme.example",
        MADE.replace("acme", "evil"),
        MADE + "\n",
        f"<{MADE}>",
    ],
)
def test_what_was_never_made_is_no_return_path(address: str) -> None:
    with pytest.raises(NotOurs, match="no such mailbox"):
        PATHS.read(address, NOW)


def test_it_ends_with_its_time() -> None:
    assert PATHS.read(MADE, NOW + 14 * DAY)
    assert PATHS.read(MADE, NOW - DAY)
    for when in (NOW + 15 * DAY, NOW - 2 * DAY):
        with pytest.raises(NotOurs, match="expired"):
            PATHS.read(MADE, when)


def test_another_secret_makes_others_and_an_old_one_is_still_believed() -> None:
    renewed = ReturnPaths([b"the next secret, as long", SECRET], {"acme.example": "bounces.acme.example"}, 14)
    assert renewed.read(MADE, NOW)
    with pytest.raises(NotOurs):
        PATHS.read(renewed.make("app@acme.example", MESSAGE, "bia@shop.example", NOW), NOW)


def test_those_that_stand_in_a_text_are_found_the_false_ones_left_out() -> None:
    false = MADE.replace("acme", "evil")
    text = f"Return-Path: <{MADE.upper()}>\r\nX: b-{'a' * 29}-{'b' * 16}@bounces.acme.example {false} {MADE}".encode()
    assert PATHS.found_in(text, NOW) == [PATHS.read(MADE, NOW)]


@given(st.text(max_size=90))
def test_nothing_else_is_raised_for_any_text(text: str) -> None:
    with pytest.raises(NotOurs):
        PATHS.read(text, NOW)


def config(*secrets: str) -> RelayConfig:
    return RelayConfig(
        tenant="acme",
        hostname="acme.smtp.example",
        plan=Plan(name="p", messages_per_hour=1),
        delivery=Delivery(helo_name="out.acme.example"),
        domains=(Domain(name="acme.example", return_path="bounces.acme.example"), Domain(name="other.example")),
        bounces=Bounces(secrets=secrets),
    )


def test_secrets_are_read_from_the_configurations_files(tmp_path: Path) -> None:
    (tmp_path / "bounces.key").write_bytes(SECRET + b"\n")
    paths = ReturnPaths.load(config("bounces.key"), tmp_path)
    assert paths.read(MADE, NOW).message == MESSAGE
    assert not paths.applies("app@other.example", MESSAGE)


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (b"short", "too short")])
def test_a_secret_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "bounces.key").write_bytes(content)
    with pytest.raises(ConfigError, match=f"bounces.key: the secret for return paths .*{said}"):
        ReturnPaths.load(config("bounces.key"), tmp_path)
