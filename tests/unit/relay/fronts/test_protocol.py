from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.fronts import protocol
from malote_relay.fronts.protocol import (
    Answer,
    Ask,
    Asked,
    BadFrame,
    Check,
    Checked,
    Frame,
    Grant,
    Over,
    Parser,
    Return,
    Take,
)
from malote_relay.fronts.purse import Purse
from malote_relay.fronts.standins import RemoteDesk, message, taken
from malote_relay.metrics import Refused
from malote_relay.quota import Reservation
from malote_relay.store.model import DsnRequest, NewMessage, NewRecipient, Notify
from malote_relay.store.model import Return as Returned
from malote_relay.submission.replies import RECIPIENT_OK, Reply

INCOMING = Path("/spool/incoming")

frames = st.one_of(
    st.builds(Ask, st.integers(0, 2**40)),
    st.builds(Grant, st.integers(0, 2**40), st.integers(0, 100)),
    st.builds(Over, st.integers(0, 9), st.floats(allow_nan=False), st.integers(0, 9), st.integers(0, 9)),
    st.builds(Return, st.integers(0, 100), st.booleans()),
    st.builds(Check, st.integers(0, 9), st.sampled_from(Asked), st.text()),
    st.builds(Checked, st.integers(0, 9), st.none() | st.just(RECIPIENT_OK), st.booleans()),
    st.builds(Answer, st.integers(0, 9), st.just(Reply(550, "5.7.1", "no", Refused.DOMAIN))),
)


@given(st.lists(frames, max_size=6), st.data())
def test_frames_arrive_as_they_were_sent_however_the_octets_are_cut(said: list[Frame], data: st.DataObject) -> None:
    octets = b"".join(map(protocol.encode, said))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=8)))
    parser = Parser()
    heard: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        heard += parser.feed(octets[start:end])
    assert heard == said


@pytest.mark.parametrize(
    "octets",
    [
        b"\xff\xff\xff\xff",  # a length beyond all measure
        b"\x00\x00\x00\x01\xc1",  # no msgpack
        b"\x00\x00\x00\x08\x92\xa6Nobody\x01",  # nothing known
        b"\x00\x00\x00\x05\x92\xa3Ask\xc0"[:-1] + b"\xc3",  # not a number
    ],
)
def test_nonsense_is_told_as_such(octets: bytes) -> None:
    with pytest.raises(BadFrame):
        Parser().feed(octets + b"\x00" * 16)


@pytest.mark.parametrize("content", [b"From: a@b.example\r\n\r\nHello\r\n", INCOMING / "front0-12ab.final"])
def test_a_message_is_handed_over_whole(content: bytes | Path) -> None:
    whole = NewMessage(
        id="0123",
        account="app",
        reverse_path="ana@acme.example",
        header_from="josé@acme.example",
        message_id="<1@acme.example>",
        recipients=[
            NewRecipient("bob@dest.example", hour=0),
            NewRecipient(
                "eva@dest.example",
                hour=0,
                dsn=DsnRequest(Notify.SUCCESS | Notify.FAILURE, True, "rfc822;eva@dest.example", "E1", Returned.FULL),
            ),
        ],
        content=content,
        size=29,
        received_at=1234.5,
        eight_bit=True,
        smtputf8=True,
        sender_unknown=True,
        checksum=0xCBF43926,
    )
    [frame] = Parser().feed(protocol.encode(taken(7, whole)))
    assert isinstance(frame, Take)
    assert frame.number == 7
    assert message(frame, INCOMING) == whole


def test_a_file_is_only_taken_from_where_fronts_write() -> None:
    whole = NewMessage("1", "a", "", "", "", [NewRecipient("b@c.example", 0)], Path("x"), 1, 1.0)
    take = msgspec.structs.replace(taken(1, whole), file="../relay.db")
    with pytest.raises(ValueError, match="plain file name"):
        message(take, INCOMING)


async def test_a_message_too_large_to_hand_over_is_refused_and_its_units_go_back() -> None:
    """What the core would take for nonsense costs one client its message, and not all clients their front."""
    said: list[Frame] = []

    def say(frame: Frame) -> None:
        protocol.encode(frame)
        said.append(frame)

    purse = Purse(say)
    purse.granted(0, 3)
    units = [unit for _ in range(3) if isinstance(unit := await purse.reserve(), Reservation)]
    whole = NewMessage(
        id="0123",
        account="app",
        reverse_path="ana@acme.example",
        header_from="ana@acme.example",
        message_id="<1@acme.example>",
        recipients=[NewRecipient("bob@dest.example", hour=0)],
        content=b"x" * protocol.MAX_FRAME,
        size=protocol.MAX_FRAME,
        received_at=0.0,
    )
    reply = await asyncio.wait_for(RemoteDesk(purse, say).take(whole, units), 30)
    assert (reply.code, reply.enhanced) == (554, "5.5.3")
    assert purse.spare == 3
    assert not any(isinstance(frame, Take) for frame in said)


def test_as_many_recipients_as_a_plan_may_allow_fit_with_all_that_dsn_says() -> None:
    request = DsnRequest(Notify.FAILURE, True, "rfc822;" + "o" * 493, "e" * 100, Returned.FULL)
    recipient = NewRecipient("r" * 64 + "@" + "d" * 190 + ".example", hour=0, dsn=request)
    whole = NewMessage(
        id="0123",
        account="app",
        reverse_path="ana@acme.example",
        header_from="ana@acme.example",
        message_id="<1@acme.example>",
        recipients=[recipient] * 30_000,
        content=b"x" * 512 * 1024,
        size=1,
        received_at=0.0,
    )
    assert Parser().feed(protocol.encode(taken(1, whole)))
