"""A client that sends exactly the octets it is told to, and takes nothing for a reply that is none (RFC 5321 4.2)."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import time
from dataclasses import dataclass

MAX_REPLY_LINE = 512
"""RFC 5321 section 4.5.3.1.5: octets in a reply line, with code and CRLF."""

_LINE = re.compile(rb"([2-5][0-5][0-9])(?:([ -])([^\r\n\x00]*))?\Z")
_ENHANCED = re.compile(r"([245])\.(?:0|[1-9][0-9]{0,2})\.(?:0|[1-9][0-9]{0,2})(?= |\Z)")
_ENTRIES = 40


class ProtocolError(Exception):
    """The server sent something that no reply may be."""


class Closed(Exception):
    """The server ended the connection where a reply was due."""


class Silent(Exception):
    """No reply came in time."""


@dataclass(frozen=True)
class Reply:
    """One reply; `lines` without code and separator."""

    code: int
    lines: tuple[str, ...]

    @property
    def enhanced(self) -> str:
        """The enhanced status code all lines begin with (RFC 2034 section 4), or ""."""
        found = {match[0] if (match := _ENHANCED.match(line)) else "" for line in self.lines}
        return found.pop() if len(found) == 1 else ""

    @property
    def positive(self) -> bool:
        return self.code // 100 == 2

    @property
    def refused(self) -> bool:
        return self.code // 100 in {4, 5}

    def __str__(self) -> str:
        return f"{self.code} {' / '.join(self.lines)}"


class Client:
    """One connection. `transcript` has the last things said, for those who read a failure."""

    def __init__(self, host: str, port: int, timeout: float, tls: ssl.SSLContext | None = None) -> None:
        self.timeout = timeout
        self.transcript: list[str] = []
        self._rest = b""
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.start_tls(tls, host)

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """The TLS handshake. Raises OSError (ssl.SSLError is one)."""
        self._note("==", b"TLS handshake")
        self.socket = context.wrap_socket(self.socket, server_hostname=host)

    @property
    def tls_version(self) -> str:
        """Such as "TLSv1.3"; "" without TLS."""
        return (self.socket.version() or "") if isinstance(self.socket, ssl.SSLSocket) else ""

    def send(self, octets: bytes) -> None:
        """Send octets as they are. A connection that broke shows when the reply is read."""
        self._note("->", octets)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.socket.sendall(octets)

    def say(self, line: str | bytes, timeout: float = 0.0) -> Reply:
        """Send a line, CRLF added, and give the reply."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.reply(timeout)

    def reply(self, timeout: float = 0.0) -> Reply:
        """The next reply. Raises Closed, Silent, ProtocolError."""
        deadline = time.monotonic() + (timeout or self.timeout)
        code = 0
        lines: list[str] = []
        while True:
            octets = self._line(deadline)
            found = _LINE.match(octets)
            if found is None:
                raise ProtocolError(f"this is no reply line: {octets[:100]!r}")
            if lines and int(found[1]) != code:
                raise ProtocolError(f"a reply that begins with {code} goes on with {int(found[1])}")
            code = int(found[1])
            lines.append((found[3] or b"").decode("utf-8", "surrogateescape"))
            if found[2] != b"-":
                return Reply(code, tuple(lines))

    def quiet(self, seconds: float) -> bool:
        """Whether the server says nothing for so long, and keeps the connection."""
        deadline = time.monotonic() + seconds
        try:
            while not self._rest and (left := deadline - time.monotonic()) > 0:
                if select.select([self.socket], [], [], left)[0]:
                    self.socket.settimeout(0)
                    with contextlib.suppress(
                        ssl.SSLWantReadError, BlockingIOError
                    ):  # a part of TLS, such as a ticket
                        octets = self.socket.recv(65_536)
                        if not octets:
                            return False
                        self._rest += octets
        except (ConnectionError, ssl.SSLError):
            return False
        finally:
            self.socket.settimeout(self.timeout)
        return not self._rest

    def until_closed(self) -> list[Reply]:
        """Every reply up to the end of the connection. Raises Silent when it does not end."""
        replies = []
        with contextlib.suppress(Closed):
            while True:
                replies.append(self.reply())
        return replies

    def closed(self) -> bool:
        """Whether the server has closed the connection, or does in time; what it still says is dropped."""
        try:
            self.until_closed()
        except (Silent, ProtocolError):
            return False
        return True

    def finish(self) -> None:
        """Say that nothing more will come (half-close)."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._rest:
            if len(self._rest) > 64 * MAX_REPLY_LINE:
                raise ProtocolError("a reply line without an end")
            left = deadline - time.monotonic()
            if left <= 0:
                raise Silent("no reply came in time")
            self.socket.settimeout(left)
            try:
                octets = self.socket.recv(65_536)
            except TimeoutError:
                raise Silent("no reply came in time") from None
            except (ConnectionError, ssl.SSLError):
                octets = b""
            finally:
                with contextlib.suppress(OSError):
                    self.socket.settimeout(self.timeout)
            if not octets:
                raise Closed("the server closed the connection" + (", in the middle of a line" if self._rest else ""))
            self._rest += octets
        line, _, self._rest = self._rest.partition(b"\n")
        self._note("<-", line)
        if not line.endswith(b"\r"):
            raise ProtocolError(f"a reply line that does not end in CR LF: {line[:100]!r}")
        if len(line) + 1 > MAX_REPLY_LINE:
            raise ProtocolError(f"a reply line of {len(line) + 1} octets")
        return line[:-1]

    def _note(self, arrow: str, octets: bytes) -> None:
        text = repr(octets[:120])[1:] + (f" … ({len(octets)} octets)" if len(octets) > 120 else "")
        self.transcript.append(f"{arrow} {text}")
        del self.transcript[:-_ENTRIES]
