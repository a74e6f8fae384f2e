"""What core and fronts say to each other: frames of msgpack, each behind its length in four octets.

A question has a number, and its answer the same. The channel keeps order, which the leases rely on.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from malote_relay.submission.admission import Seen
from malote_relay.submission.replies import Reply

MAX_FRAME: Final = 32 * 1024 * 1024
"""Octets; content in a frame has at most some 256 KiB, what is larger goes by a file's name. The rest is for
recipients: some 900 octets each with all that DSN may say of one."""

_LENGTH: Final = 4


class Frame(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One thing said."""


class Hello(Frame, frozen=True):
    """Front: it has loaded the configuration with this hash, and waits for `Begin`."""

    configuration: str


class Begin(Frame, frozen=True):
    """Core: take clients."""


class Ask(Frame, frozen=True):
    """Front: a unit of the hour, please, for the recipient with this number; 0: only some to have in stock."""

    number: int


class Grant(Frame, frozen=True):
    """Core: so many units, the first of them for the recipient asked for; 0 when there is no stock to be had."""

    number: int
    count: int


class Over(Frame, frozen=True):
    """Core: there is none (`quota.OverLimit`)."""

    number: int
    returns_at: float
    limit: int
    tolerance: int


class Recall(Frame, frozen=True):
    """Core: room is short, give back what no recipient has."""


class Return(Frame, frozen=True):
    """Front: so many units back; `recalled` when it answers a `Recall`, then also none."""

    count: int
    recalled: bool = False


class Take(Frame, frozen=True):
    """Front: this message is complete and signed (`store.model.NewMessage`); a unit is charged for each recipient.

    Recipients are addresses with what DSN asked for, packed as in the store. Content is in the frame, or in a file of
    this name in the store's `incoming` directory, synced.
    """

    number: int
    id: str
    account: str
    reverse_path: str
    header_from: str
    message_id: str
    recipients: tuple[tuple[str, str], ...]
    content: bytes
    file: str
    size: int
    received_at: float
    eight_bit: bool
    smtputf8: bool
    sender_unknown: bool
    checksum: int | None


class Answer(Frame, frozen=True):
    """Core: what the client is told of its message. Positive: it is on disk, synced."""

    number: int
    reply: Reply


class Asked(enum.StrEnum):
    """What a `Check` is about."""

    SENDER = "sender"
    RECIPIENT = "recipient"
    ACCOUNT = "account"


class Check(Frame, frozen=True):
    """Front: does this sender exist, may this recipient be sent to, may this account (user name) send now?"""

    number: int
    about: Asked
    name: str


class Checked(Frame, frozen=True):
    """Core: the refusal, if any, and whether a sender's existence is unknown."""

    number: int
    refusal: Reply | None
    unknown: bool


class Came(Frame, frozen=True):
    """So many sessions more, or less, of a client's address: from a front to the core, and on to the others."""

    client: str
    change: int


class Noted(Frame, frozen=True):
    """What a client did that counts against limits everywhere: from a front to the core, and on to the others.

    It was `age` seconds ago: a front that is started anew hears of what happened before.
    """

    seen: Seen
    client: str
    account: str
    age: float = 0.0


class Refusal(Frame, frozen=True):
    """Front: a refusal to count, by its reason (`metrics.Refused`)."""

    reason: str


class Reload(Frame, frozen=True):
    """Core: load the configuration anew; it should have this hash. Answered by `Loaded`."""

    configuration: str


class Loaded(Frame, frozen=True):
    """Front: the hash of what is in force with it now, and why it is still the old one, if it is."""

    configuration: str
    error: str = ""


class Ping(Frame, frozen=True):
    """Core: are you there? Whoever stays silent for long is ended."""


class Pong(Frame, frozen=True):
    """Front: yes."""


class Stop(Frame, frozen=True):
    """Core: let the transactions under way finish within so many seconds, and end."""

    grace: float


Any = (
    Hello | Begin | Ask | Grant | Over | Recall | Return | Take | Answer | Check | Checked | Came | Noted | Refusal
    | Reload | Loaded | Ping | Pong | Stop
)  # fmt: skip


class BadFrame(ValueError):
    """What came is no frame. The other side is not to be trusted any more."""


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Any)


def encode(frame: Frame) -> bytes:
    """A frame with its length in front. Raises BadFrame when it is too large."""
    body = _encoder.encode(frame)
    if len(body) > MAX_FRAME:
        raise BadFrame(f"a frame of {len(body)} octets")
    return len(body).to_bytes(_LENGTH, "big") + body


class Parser:
    """Takes frames out of octets as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, octets: bytes) -> list[Any]:
        """The frames completed by `octets`. Raises BadFrame."""
        buffer = self._buffer
        buffer += octets
        frames: list[Any] = []
        start, end = 0, len(buffer)
        while end - start >= _LENGTH:
            length = int.from_bytes(buffer[start : start + _LENGTH], "big")
            if length > MAX_FRAME:
                raise BadFrame(f"a frame of {length} octets")
            if end - start - _LENGTH < length:
                break
            start += _LENGTH
            try:
                frames.append(_decoder.decode(bytes(buffer[start : start + length])))
            except msgspec.DecodeError as error:
                raise BadFrame(str(error)) from error
            start += length
        del buffer[:start]
        return frames
