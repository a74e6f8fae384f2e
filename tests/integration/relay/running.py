"""A relay in the test's process or in one of its own, and the clients that speak to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import msgspec
from tests.integration.relay.site import HOSTNAME, Site

from malote_dev.mailworld.client import Endpoint, Security, Sent, send
from malote_relay.relay import Relay
from malote_relay.reload import fingerprint, load


def plain(username: str, password: str) -> str:
    """What AUTH PLAIN is given (RFC 4616)."""
    return base64.b64encode(f"\0{username}\0{password}".encode()).decode()


class Dialogue:
    """A client that says exactly what it is told to, octet for octet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read(self, timeout: float = 30.0) -> str:
        """The next reply, lines joined; "" when the connection has ended."""
        lines = []
        async with asyncio.timeout(timeout):
            while line := (await self.reader.readline()).decode():
                assert line.endswith("\r\n")
                lines.append(line.rstrip("\r\n"))
                if line[3:4] != "-":
                    break
        return "\n".join(lines)

    async def say(self, octets: bytes | str) -> str:
        """Send a line (CRLF is added to text, not to octets) and give the reply."""
        self.send(octets)
        return await self.read()

    def send(self, octets: bytes | str) -> None:
        self.writer.write(octets if isinstance(octets, bytes) else octets.encode() + b"\r\n")

    async def closed(self, timeout: float = 30.0) -> bool:
        """Whether the relay has closed the connection, or does within the time."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(timeout):
                return await self.reader.read(1) == b""
        return True

    def close(self) -> None:
        self.writer.transport.abort()


class Running:
    """A relay in this process, on the test's event loop."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.relay = Relay(site.directory, site.spool, load(site.directory), fingerprint(site.directory), 2.0)
        self.dialogues: list[Dialogue] = []

    @property
    def metrics(self) -> Any:
        return self.relay.metrics.registry

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(name, labels) or 0.0

    async def stored(self) -> int:
        """How many recipients wait, and were ever charged: 0 when nothing was kept."""
        return int(sum(window.charged for window in [self.relay._window.usage(self.relay._clock.now())]))

    def reserved(self) -> int:
        return self.relay._window.usage(self.relay._clock.now()).reserved

    async def keeps_nothing(self) -> None:
        """Wait until no unit is reserved; then none is charged, nothing is queued, and no file is left."""
        door = self.relay._door
        assert door is not None
        incoming = self.site.spool / "incoming"
        await eventually(
            lambda: not self.reserved() and not door.spool.in_flight and not list(incoming.iterdir()),
        )
        assert await self.stored() == 0
        state = await self.relay._store.queue_state(time.time())
        assert (state.ready, state.deferred, state.held) == (0, 0, 0)

    def endpoint(self, security: Security = Security.STARTTLS) -> Endpoint:
        server = self.relay.server
        port = server.submissions_port if security is Security.TLS else server.submission_port
        return Endpoint(HOSTNAME, port, security, self.site.authority_file, "127.0.0.1", 60.0)

    async def send(
        self,
        message: bytes,
        *,
        sender: str = "ana@acme.example",
        to: tuple[str, ...] = ("bob@dest.example",),
        username: str = "app@acme",
        password: str = "",
        security: Security = Security.STARTTLS,
    ) -> Sent:
        """Send as an application does."""
        return await asyncio.to_thread(
            send, self.endpoint(security), username, password or self.site.password, sender, to, message
        )

    async def plain(self, *, greet: bool = True, source: str = "127.0.0.1", header: bytes = b"") -> Dialogue:
        """A connection to the STARTTLS port, in clear, from an address of the loopback; `header` is sent first."""
        port = self.relay.server.submission_port
        dialogue = Dialogue(*await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)))
        self.dialogues.append(dialogue)
        dialogue.send(header)
        if greet:
            assert (await dialogue.read()).startswith("220 ")
        return dialogue

    async def secure(self, *, source: str = "127.0.0.1", header: bytes = b"") -> Dialogue:
        """A connection on which TLS is on and nothing else has been said."""
        dialogue = await self.plain(source=source, header=header)
        await dialogue.say("EHLO client.example")
        assert (await dialogue.say("STARTTLS")).startswith("220 ")
        await dialogue.writer.start_tls(self.site.client_context(), server_hostname=HOSTNAME)
        return dialogue

    async def signed_in(self, username: str = "app@acme") -> Dialogue:
        """A connection on which a message may be sent."""
        dialogue = await self.secure()
        await dialogue.say("EHLO client.example")
        answer = await dialogue.say(f"AUTH PLAIN {plain(username, self.site.password)}")
        assert answer.startswith("235 ")
        return dialogue

    async def at_data(self, *recipients: str) -> Dialogue:
        """A connection on which the content is waited for."""
        dialogue = await self.signed_in()
        assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")
        for recipient in recipients or ("bob@dest.example",):
            assert (await dialogue.say(f"RCPT TO:<{recipient}>")).startswith("250 ")
        assert (await dialogue.say("DATA")).startswith("354 ")
        return dialogue

    async def rcpt(self, recipient: str) -> str:
        """What RCPT is answered."""
        dialogue = await self.signed_in()
        assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")
        answer = await dialogue.say(f"RCPT TO:<{recipient}>")
        dialogue.close()
        return answer

    async def stop(self) -> None:
        for dialogue in self.dialogues:
            dialogue.close()
        await self.relay.stop()


class Program:
    """The command `malote-relay` as a process of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.process: asyncio.subprocess.Process | None = None
        self.ports: dict[str, int] = {}

    async def start(self, *options: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "malote_relay", "--config", str(self.site.directory), "--spool",
            str(self.site.spool), *options, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said = await self.said("listening")
        self.ports = {name: said[name] for name in ("submission", "submissions", "observe")}

    async def said(self, event: str, timeout: float = 60.0) -> dict[str, Any]:
        """Wait for a line of the log."""
        assert self.process is not None
        assert self.process.stderr is not None
        async with asyncio.timeout(timeout):
            while line := await self.process.stderr.readline():
                entry: dict[str, Any] = msgspec.json.decode(line)
                if entry["event"] == event:
                    return entry
        raise AssertionError(f"it ended without saying {event!r}")

    async def send(self, message: bytes, to: tuple[str, ...] = ("bob@dest.example",)) -> Sent:
        endpoint = Endpoint(
            HOSTNAME, self.ports["submission"], Security.STARTTLS, self.site.authority_file, "127.0.0.1", 60.0
        )
        password = self.site.password
        return await asyncio.to_thread(send, endpoint, "app@acme", password, "ana@acme.example", to, message)

    async def end(self, signal: int) -> int:
        assert self.process is not None
        self.process.send_signal(signal)
        async with asyncio.timeout(60):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


class Ctl:
    """The command `malote-relayctl`, asking the relay of that site."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def __call__(self, *arguments: str, spool: str = "", **environment: str) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "malote_relay.control.program", *arguments,
            env=os.environ | {"MALOTE_SPOOL": spool or str(self.site.spool), "COLUMNS": "200"} | environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, errors = await process.communicate()
        return process.returncode or 0, out.decode(), errors.decode()

    async def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What it shows as JSON."""
        code, out, errors = await self("--json", *arguments)
        assert code == 0, errors
        return [msgspec.json.decode(line) for line in out.splitlines()]


async def eventually(question: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Ask (a function or coroutine function) until the answer is true, and give it."""
    for _ in range(int(seconds / 0.02)):
        answer = question()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come true in time")


def message(text: str = "Hello", *, header: str = "From: Ana <ana@acme.example>\r\nSubject: Hello\r\n") -> bytes:
    """A small message with CRLF line ends."""
    return f"{header}\r\n{text}\r\n".encode()


async def ask(relay: Any, path: str) -> tuple[int, bytes]:
    def get() -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{relay.relay.observatory.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    return await asyncio.to_thread(get)


async def readiness(relay: Any) -> dict[str, Any]:
    status, body = await ask(relay, "/readyz")
    assert status == 200
    answer: dict[str, Any] = msgspec.json.decode(body)
    return answer
