"""Talking to a running relay over its socket: plain and blocking, for programs and tests."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from malote_relay.control.place import SOCKET, address
from malote_relay.control.registry import Description


class Unreachable(Exception):
    """No relay answers there; the message says what to look at."""


class Failed(Exception):
    """The relay answered with an error, in words."""


class Client:
    """A connection to the relay whose spool is `spool`. Raises Unreachable."""

    def __init__(self, spool: Path, timeout: float = 60.0) -> None:
        self._where = spool / SOCKET
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            with address(spool) as where:
                self._socket.connect(where)
        except OSError as error:
            self._socket.close()
            raise Unreachable(
                f"no relay answers at {self._where}: {error.strerror or error}. Is it running, is this its spool, "
                "and are you the user it runs as?"
            ) from error
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def commands(self) -> list[Description]:
        """What this relay can be asked."""
        (answer,) = self.ask("help")
        return msgspec.convert(answer["commands"], list[Description])

    def ask(self, command: str, **arguments: Any) -> Generator[dict[str, Any], None, None]:
        """The rows of the answer, or its only one, as they come. Raises Failed, Unreachable."""
        try:
            with contextlib.suppress(BrokenPipeError):  # hung up on already: it may have said why
                self._socket.sendall(msgspec.json.encode({"command": command, **arguments}) + b"\n")
            for line in self._lines:
                part = msgspec.json.decode(line)
                if "row" in part:
                    yield part["row"]
                    continue
                if "answer" in part:
                    yield part["answer"]
                elif "error" in part:
                    raise Failed(part["error"])
                return
        except OSError as error:
            raise Unreachable(f"the relay at {self._where} does not answer: {error.strerror or error}") from error
        raise Unreachable(f"the relay at {self._where} hung up: it may be ending; see its log")
