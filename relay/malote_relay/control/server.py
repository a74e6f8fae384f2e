"""The relay's end of the socket: few connections at a time, bounded requests, answers no faster than they are read.

Nothing here may harm the relay: what a command raises is told to whoever asked and written to the log; a client that
does not read is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from malote_relay.control.fields import Nothing
from malote_relay.control.place import SOCKET, address
from malote_relay.control.registry import Controls, Description, Refused

MAX_REQUEST: Final = 64 * 1024
"""Octets in one request."""

MAX_CONNECTIONS: Final = 8
IDLE_SECONDS: Final = 60.0
"""For the next request to come, and for a part of an answer to be read."""

_ROWS_AT_ONCE: Final = 100

_log = structlog.get_logger("malote.control")
_encode = msgspec.json.Encoder().encode


class ControlServer:
    """Serves `controls` on a socket in `spool`. Only for the process that has the spool's lock."""

    def __init__(self, controls: Controls, spool: Path, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._controls = controls
        self._spool = spool
        self._idle_seconds = idle_seconds
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Where the spool takes no socket (some volumes do not), say so and go on without."""
        try:
            bound = self._bind()
            try:
                self._server = await asyncio.start_unix_server(self._connected, sock=bound, limit=MAX_REQUEST)
            except BaseException:
                bound.close()
                raise
        except OSError as error:
            _log.error("no control socket: malote-relayctl cannot reach this relay", error=str(error))

    def _bind(self) -> socket.socket:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(bound.fileno(), 0o600)  # bind gives the file the mode of the socket: there is no moment between
            with address(self._spool) as where:
                Path(where).unlink(missing_ok=True)
                bound.bind(where)
                os.chmod(where, 0o600)
            bound.setblocking(False)
        except BaseException:
            bound.close()
            raise
        return bound

    async def stop(self) -> None:
        """Hang up on everybody, remove the socket. Harmless when it never started."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        with contextlib.suppress(OSError):
            (self._spool / SOCKET).unlink(missing_ok=True)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # it is one: asyncio says so of a coroutine function
        self._connections.add(task)
        try:
            if len(self._connections) > MAX_CONNECTIONS:
                await self._send(writer, [{"error": "too many ask at the same time: try again in a moment"}])
            else:
                await self._converse(reader, writer)
        except (OSError, TimeoutError):
            pass  # it went away, or reads no more
        except asyncio.CancelledError:
            pass  # the relay ends: not an error of the connection
        except Exception:
            _log.exception("a control connection failed")
        finally:
            self._connections.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    line = await reader.readline()
            except ValueError:
                await self._send(writer, [{"error": f"a request has at most {MAX_REQUEST} octets"}])
                return
            if not line:
                return
            await self._answer(line, writer)

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        name: object = None
        try:
            try:
                request = msgspec.json.decode(line)
            except msgspec.DecodeError as error:
                raise Refused(f"a request is a JSON object on one line: {error}") from error
            if not isinstance(request, dict):
                raise Refused('a request is a JSON object: {"command": "…"}')
            name = request.get("command")
            if name == "help":
                await self._send(writer, [{"answer": _help(self._controls.descriptions(), request)}])
                return
            command, arguments = self._controls.prepare(request)
            if command.one is not None:
                await self._send(writer, [{"answer": await command.one(arguments)}])
            elif command.rows is not None:
                rows: list[dict[str, Any]] = []
                count = 0
                async with contextlib.aclosing(command.rows(arguments)) as answers:  # type: ignore[type-var]
                    async for answer in answers:
                        rows.append({"row": answer})
                        count += 1
                        if len(rows) >= _ROWS_AT_ONCE:
                            await self._send(writer, rows)
                            rows.clear()
                await self._send(writer, [*rows, {"end": count}])
        except Refused as refused:
            await self._send(writer, [{"error": str(refused)}])
        except (OSError, TimeoutError):
            raise
        except Exception as error:
            _log.exception("a command failed", command=str(name)[:60])
            await self._send(writer, [{"error": f"it failed in the relay: {type(error).__name__}: {error}"}])

    async def _send(self, writer: asyncio.StreamWriter, lines: Sequence[dict[str, Any]]) -> None:
        writer.write(b"".join(_encode(line) + b"\n" for line in lines))
        async with asyncio.timeout(self._idle_seconds):
            await writer.drain()


def _help(descriptions: Sequence[Description], request: dict[str, Any]) -> dict[str, Any]:
    """The one command that is always there: what the others are."""
    try:
        msgspec.convert({key: value for key, value in request.items() if key != "command"}, Nothing)
    except msgspec.ValidationError as error:
        raise Refused(f"help: {error}") from error
    return {"commands": descriptions}
