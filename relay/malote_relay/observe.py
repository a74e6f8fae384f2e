"""What others may ask of a running relay, on a port of its own: /metrics, /healthz, /readyz.

Served by a thread, so that it answers even while the event loop does not: that is what /healthz is for. Plain HTTP;
nothing secret is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from malote_relay.metrics import Metrics

STALLED_SECONDS: Final = 10.0
"""Without a turn of the event loop for so long the relay counts as hung."""

_BACKLOG: Final = 32
_TICK_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 2.0
"""How often the server looks whether it is to end."""

_REFRESH_SECONDS: Final = 2.0


class Heartbeat:
    """Notes the event loop's turns; any thread may ask whether it still turns."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Beat from now on; call it on the loop."""
        self._last = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self.start)

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def alive(self) -> bool:
        """Whether the loop turned within the last seconds."""
        return time.monotonic() - self._last < STALLED_SECONDS


class Observatory:
    """The HTTP server. `readiness` gives the body of /readyz; `refresh` brings gauges up to date on the loop."""

    def __init__(
        self,
        metrics: Metrics,
        heartbeat: Heartbeat,
        readiness: Callable[[], dict[str, Any]],
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._readiness = readiness
        self._refresh = refresh
        self._loop = asyncio.get_running_loop()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def start(self, address: str, port: int) -> None:
        """Listen. Raises OSError with words for people."""
        observatory = self

        class Handler(_Handler):
            answer = staticmethod(observatory._answer)

        try:
            server = _Server((address, port), Handler, bind_and_activate=False)
            server.socket.close()
            server.socket = _listening(address, port)
        except OSError as error:
            where = f"{address or '*'}:{port}"
            raise OSError(error.errno, f"cannot listen on {where}: {error.strerror or error}") from error
        self.port = server.socket.getsockname()[1]
        self._server = server
        threading.Thread(target=server.serve_forever, name="observe", daemon=True, args=(_LOOK_SECONDS,)).start()

    def stop(self) -> None:
        """Answer no more. Returns at once; the port closes within two seconds."""
        if self._server is not None:
            threading.Thread(target=_close, args=(self._server,), daemon=True).start()
            self._server = None

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body for a GET; called in a thread of the server's."""
        match path.partition("?")[0]:
            case "/metrics":
                self._bring_up_to_date()
                return 200, CONTENT_TYPE_LATEST, generate_latest(self._metrics.registry)
            case "/healthz":
                alive = self._heartbeat.alive
                return (200 if alive else 503), "text/plain", b"ok\n" if alive else b"the event loop does not turn\n"
            case "/readyz":
                body = self._readiness()
                return (200 if body["ready"] else 503), "application/json", json.dumps(body).encode() + b"\n"
            case _:
                return 404, "text/plain", b"here are /metrics, /healthz and /readyz\n"

    def _bring_up_to_date(self) -> None:
        async def refresh() -> None:
            await self._refresh()

        future = asyncio.run_coroutine_threadsafe(refresh(), self._loop)
        try:
            future.result(_REFRESH_SECONDS)
        except Exception:  # older figures are better than none: the scrape itself must not fail
            future.cancel()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _listening(address: str, port: int) -> socket.socket:
    """A socket on the address; without one, on every address of both families where there are both."""
    if not address and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # IPv6 may be known and yet switched off
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=_BACKLOG)


def _close(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    timeout = 10
    protocol_version = "HTTP/1.1"
    answer: Callable[[str], tuple[int, str, bytes]]

    def do_GET(self) -> None:
        status, content_type, body = self.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def version_string(self) -> str:
        return "malote"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: probes come every few seconds."""
