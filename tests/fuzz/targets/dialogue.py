"""The dialogue of a session over TLS, without a socket: any octets, in any blocks.

A reader of its own walks through the octets beside the relay's replies: each line gets one reply, content after 354
ends at CRLF.CRLF only, a chunk is as long as it says. So a message hidden in another one, a reply too many or too
few, or a message kept without a positive reply shows. Nothing may be left behind: units, memory, files.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from tests.fuzz.target import Target

from malote_relay import metrics, passwords
from malote_relay.clock import SystemClock
from malote_relay.config import Account, Delivery, Domain, Limits, Plan, RelayConfig, Submission
from malote_relay.quota import HourWindow
from malote_relay.store.model import NewMessage
from malote_relay.submission import acceptance, desk, signin
from malote_relay.submission import session as dialogue
from malote_relay.submission.acceptance import Door
from malote_relay.submission.body import Spool
from malote_relay.submission.desk import StoreDesk
from malote_relay.submission.guard import Guard
from malote_relay.submission.policy import Rules
from malote_relay.submission.replies import Reply

_TOKEN = base64.b64encode(b"\0app@acme\0secret")
_SIGN_IN = b"EHLO client.example\r\nAUTH PLAIN " + _TOKEN + b"\r\n"
_CONFIG = RelayConfig(
    tenant="acme",
    hostname="acme.smtp.example",
    plan=Plan(name="p", messages_per_hour=1_000_000_000, max_message_bytes=3000, max_recipients=5),
    delivery=Delivery(helo_name="out.example"),
    submission=Submission(open=True),
    accounts=(Account(name="app", username="app@acme", verifier=passwords.verifier("secret")),),
    domains=(Domain(name="acme.example", sending=True),),
    limits=Limits(min_free_bytes=0),
)
_CHUNK = re.compile(rb"BDAT +([0-9]+)( +LAST)? *\Z", re.IGNORECASE)
_REPLY = re.compile(rb"((?:[2-5][0-9]{2}-[^\r\n]*\r\n)*)([2-5][0-9]{2})(?: [^\r\n]*)?\r\n")


class _Errors:
    """The session's log: an exception in it is a finding."""

    def __init__(self) -> None:
        self.raised: list[str] = []

    def exception(self, event: str, **_: object) -> None:
        import traceback

        self.raised.append(f"{event}: {traceback.format_exc()}")

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class _NoDelay(Guard):
    def refuses(self, *_: object) -> bool:
        return False

    def failed(self, *_: object) -> float:
        return 0.0


class _Welcome:
    """Nobody is suppressed, and nothing paused."""

    async def check(self, who: object) -> Reply | None:
        return None


class _World:
    """What a session needs around it, and what it leaves there."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.incoming = Path(tempfile.mkdtemp(prefix="fuzz-dialogue-"))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.guard = _NoDelay()
        self.kept: list[NewMessage] = []
        self.window = HourWindow(1_000_000_000, 20, {}, 0)
        self.clock = SystemClock()
        store: Any = self
        signer: Any = self
        counts = metrics.Metrics()
        self.door = Door(
            rules=Rules(_CONFIG),
            signer=signer,
            senders=self,
            recipients=_Welcome(),
            accounts=_Welcome(),
            desk=StoreDesk(self.window, store, self.clock, counts, lambda *_: None),
            spool=Spool(self.incoming, _CONFIG.limits),
            clock=self.clock,
            metrics=counts,
        )

    async def accept(self, message: NewMessage) -> Sequence[Any]:
        self.kept.append(message)
        return []

    async def sign(self, domain: str, content: bytes | Path) -> bytes:
        return b""

    async def check(self, sender: object) -> tuple[Reply | None, bool]:
        return None, False

    @contextlib.contextmanager
    def place(self, session: object) -> Iterator[Reply | None]:
        yield None

    def signed_in(self, session: object) -> None:
        pass


class _Transport(asyncio.Transport):
    def __init__(self, world: _World, protocol: asyncio.Protocol) -> None:
        super().__init__({"sslcontext": world.context, "peername": ("127.0.0.1", 1)})
        self._loop, self._protocol = world.loop, protocol
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


_WORLD: list[_World] = []


def check(data: bytes) -> None:
    if not _WORLD:
        _WORLD.append(_World())
    world = _WORLD[0]
    world.kept.clear()
    how, stream = (data[0], data[1:]) if data else (0, b"")
    if how & 1:
        stream = _SIGN_IN + stream
    size = (0, 1, 7, 50)[how >> 1 & 3] or len(stream) or 1
    errors = _Errors()
    with contextlib.ExitStack() as patched:
        for module in (acceptance, desk, dialogue, signin):
            patched.enter_context(mock.patch.object(module, "_log", errors))
        blocks = [stream[i : i + size] for i in range(0, len(stream), size)]
        written = world.loop.run_until_complete(_talk(world, blocks))
    assert not errors.raised, errors.raised[0]
    _Walk(stream, written).compare(world.kept)
    assert world.window.usage(world.clock.now()).reserved == 0
    assert world.door.spool.in_flight == 0
    assert not list(world.incoming.iterdir())


async def _talk(world: _World, blocks: Sequence[bytes]) -> bytes:
    host: Any = world
    session = dialogue.Session(world.door, host, "192.0.2.1")
    transport = _Transport(world, session)
    session.connection_made(transport)
    for block in blocks:
        if transport.closed:
            break
        session.data_received(block)
        await asyncio.sleep(0)
    task = session.task
    assert task is not None
    calm = 0
    while calm < 10 and not task.done():
        calm = calm + 1 if session.waiting else 0
        await asyncio.sleep(0)
    if not transport.closed:
        session.eof_received()
        transport.close()
    async with asyncio.timeout(5):
        await asyncio.gather(task, return_exceptions=True)
    return transport.written


class _Walk:
    """Goes through what was sent and what was answered, side by side."""

    def __init__(self, stream: bytes, written: bytes) -> None:
        self._stream = stream
        self._replies = _replies(written)
        assert self._replies[0][0] == 220
        self._replies.pop(0)
        self._contents: list[bytes] = []
        self._chunks = b""
        self._raw = b""

    def compare(self, kept: Sequence[NewMessage]) -> None:
        self._walk()
        if [code for code, _ in self._replies] == [421]:
            self._replies.clear()  # it has had enough, and says so behind its last reply
        assert not self._replies, f"replies too many: {self._replies}"
        assert len(kept) == len(self._contents), f"{len(kept)} messages kept, {len(self._contents)} told"
        for message, content in zip(kept, self._contents, strict=True):
            assert isinstance(message.content, bytes)
            bare = message.content.replace(b"\r\n", b"")
            assert not {0, 10, 13} & set(bare), "a bare CR, LF or NUL in what is kept"
            assert message.content.endswith(content.partition(b"\r\n\r\n")[2])
            assert message.header_from.endswith("@acme.example")
            assert message.recipients

    def _walk(self) -> None:
        while self._replies and (line := self._line()) is not None:
            code, text = self._reply()
            if code == 421 or (code == 221 and not self._replies):
                return
            chunk = _CHUNK.match(line)
            if self._raw[:4].upper() == b"BDAT" and (chunk is None or len(line) > dialogue.MAX_COMMAND - 2):
                assert not self._replies, "what follows a chunk that cannot be counted was read as commands"
                return
            while code == 334:
                if self._line() is None:
                    return
                code, text = self._reply()
            if code == 354:
                end = (b"\r\n" + self._stream).find(b"\r\n.\r\n")
                if end < 0:
                    return
                content = self._stream[:end]
                self._stream = self._stream[end + 3 :]
                code, text = self._reply()
                if code == 250:
                    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n")
                    self._contents.append(stuffed[2:])
            elif chunk:
                count = int(chunk[1])
                octets, self._stream = self._stream[:count], self._stream[count:]
                self._chunks += octets
                if chunk[2]:
                    if code == 250:
                        self._contents.append(self._chunks + (b"" if self._chunks.endswith(b"\r\n") else b"\r\n"))
                    self._chunks = b""
            elif code == 250 and line[:4].upper() in {b"MAIL", b"RSET", b"EHLO", b"HELO"}:
                self._chunks = b""
            assert not text.startswith(b"4.3.0"), "an internal error"

    def _line(self) -> bytes | None:
        line, end, rest = self._stream.partition(b"\n")
        if not end:
            return None
        self._stream, self._raw = rest, line
        # One that does not end in CRLF is answered, but is no command.
        return line.removesuffix(b"\r") if line.endswith(b"\r") and b"\r" not in line[:-1] else b""

    def _reply(self) -> tuple[int, bytes]:
        assert self._replies, "a reply is missing"
        return self._replies.pop(0)


def _replies(written: bytes) -> list[tuple[int, bytes]]:
    found = []
    place = 0
    while place < len(written):
        match = _REPLY.match(written, place)
        assert match is not None, written[place:]
        found.append((int(match[2]), match[0][4:]))
        place = match.end()
    return found


_HEAD = b"MAIL FROM:<ana@acme.example>\r\nRCPT TO:<bob@dest.example>\r\n"
_TEXT = b"From: ana@acme.example\r\n\r\nhello\r\n"

TARGET = Target(
    "dialogue",
    check,
    words=(
        _HEAD,
        b"DATA\r\n",
        _TEXT,
        b"\r\n.\r\n",
        b".\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"QUIT\r\n",
        b"EHLO x\r\n",
        b"HELO x\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH LOGIN\r\n",
        b"*\r\n",
        b"YQ==\r\n",
        _TOKEN + b"\r\n",
        b"MAIL FROM:<>\r\n",
        b"VRFY x\r\n",
        b"BDAT ",
        b"BDAT 0 LAST\r\n",
        b"BDAT 33 LAST\r\n" + _TEXT,
        b"BDAT 33\r\n" + _TEXT,
        b" LAST\r\n",
        b"3",
        b"STARTTLS\r\n",
        b"HELP\r\n",
        b"RCPT TO:<x@dest.example> NOTIFY=NEVER\r\n",
        b"\n.\n",
        b"\r.\r",
        b"\r\n.\n",
        b"From: x@y.example\r\n",
        b"x" * 1000,
    ),
    seeds=(
        b"\x01" + _HEAD + b"DATA\r\n" + _TEXT + b".\r\nQUIT\r\n",
        b"\x03" + _HEAD + b"BDAT 33\r\n" + _TEXT + b"BDAT 0 LAST\r\n" + _HEAD + b"DATA\r\n" + _TEXT + b"..\r\n.\r\n",
        b"\x05" + _HEAD + b"DATA\r\n" + _TEXT + b"\n.\n" + _HEAD + b"DATA\r\n" + _TEXT + b"\r\n.\r\n",
        b"\x00EHLO x\r\nAUTH LOGIN\r\nYXBwQGFjbWU=\r\nc2VjcmV0\r\n" + _HEAD + b"DATA\r\n" + _TEXT + b".\r\n",
    ),
    most=20,
)
