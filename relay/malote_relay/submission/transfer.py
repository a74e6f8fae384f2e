"""The content of one message on its way from the wire to its body, after DATA or by BDAT (RFC 3030).

Nothing that a client sends as content is ever read as a command: what cannot be taken is read all the same, and
dropped. So a refusal is told where the client waits for it, after the dot or after its chunk.
"""

from __future__ import annotations

from typing import Final

from malote_relay.submission import replies
from malote_relay.submission.body import Body, NoRoom
from malote_relay.submission.data import ChunkReader, DataReader, Flaw
from malote_relay.submission.replies import Reply
from malote_relay.submission.wire import BLOCK, Gone, Wire

_PROGRESS: Final = 1024 * 1024
"""Octets for which the time allowed to content is given anew: a client may be slow, but not without end."""


class Transfer:
    """One message's content as it comes in, at most `limit` octets of it, within `seconds` for each megabyte.

    `refusal` says why it is not taken, once it is not; its body is discarded by then. Without a body there is
    nothing to take: what comes is only read. Every method raises Gone when the client leaves, or goes on and on.
    `midway` while what comes next is content, even for whoever is told of an error.
    """

    def __init__(
        self, wire: Wire, body: Body | None, limit: int, seconds: float, refusal: Reply | None = None
    ) -> None:
        self.body = body
        self.refusal = refusal
        self.midway = False
        self._wire = wire
        self._limit = limit
        self._seconds = seconds
        self._chunks = ChunkReader(limit)
        self._received = 0
        self._progress = 0
        self._deadline = 0.0

    async def data(self) -> None:
        """Take what follows DATA, up to its end."""
        reader = DataReader(self._limit)
        self.midway = True
        self._allow_time()
        rest = b""
        while not reader.finished:
            content, rest = reader.feed(await self._block())
            self._take(content, reader.flaw)
        self._wire.unread(rest)
        self.midway = False

    async def chunk(self, size: int, *, last: bool) -> None:
        """Take so many octets, which may be none."""
        self.midway = True
        if self.refusal is None and self._chunks.size + size > self._limit:
            self._refuse(replies.too_big(self._limit))
        self._allow_time()
        while size > 0:
            octets = await self._block(size)
            size -= len(octets)
            self._take(self._chunks.feed(octets), self._chunks.flaw)
        self.midway = False
        if last:
            self._take(self._chunks.end(), self._chunks.flaw)

    def discard(self) -> None:
        """Forget the content, and give back what it took."""
        if self.body is not None:
            self.body.discard()

    def _allow_time(self) -> None:
        self._progress = self._received + _PROGRESS
        self._deadline = self._wire.loop.time() + self._seconds

    async def _block(self, most: int = BLOCK) -> bytes:
        octets = await self._wire.block(self._deadline, most)
        self._received += len(octets)
        if self.refusal is not None and self._received > 2 * self._limit + _PROGRESS:
            self._wire.leave(self.refusal)  # nothing that follows may be taken for a command
            raise Gone
        if self._received > self._progress:
            self._allow_time()
        return octets

    def _take(self, content: bytes, flaw: Flaw | None) -> None:
        if self.refusal is not None:
            return
        if flaw is not None:
            self._refuse(_refusal(flaw, self._limit))
        elif content and self.body is not None:
            try:
                self.body.write(content)
            except NoRoom as error:
                self._refuse(replies.TOO_MUCH_DATA_IN_FLIGHT if error.flight else replies.NO_ROOM)

    def _refuse(self, refusal: Reply) -> None:
        self.refusal = refusal
        self.discard()


def _refusal(flaw: Flaw, limit: int) -> Reply:
    if flaw is Flaw.TOO_BIG:
        return replies.too_big(limit)
    return replies.malformed(f"the message is refused: {flaw.value}")
