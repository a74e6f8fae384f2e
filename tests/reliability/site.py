"""A relay as a process, with a configuration directory as the operator writes it: started, killed, started again."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.harness.processes import Child, RunError, free_port
from tests.reliability.internet import SENDER, Internet
from tests.reliability.shim import Faults

from malote_dev.mailworld.certificates import CertificateAuthority
from malote_relay import passwords
from malote_relay.config import (
    CERTIFICATE_FILE,
    CERTIFICATE_KEY_FILE,
    CONFIG_FILE,
    KEYS_DIRECTORY,
    Account,
    AccountPause,
    Delivery,
    DkimKey,
    Domain,
    Limits,
    Listen,
    Notices,
    Plan,
    RelayConfig,
    Resolver,
    Submission,
    Suppression,
    encode,
)

HOST = "relay.example"
USER = "app@reliability"
PASSWORD = "a password of the harness"
MAX_RETRY_SECONDS = 4
_START_SECONDS = 60.0
_NOTICE_SECONDS = 0.5


class Site:
    """The directories of one relay. `extra` is merged into relay.json as it is, for fields this code knows not."""

    def __init__(
        self,
        directory: Path,
        internet: Internet,
        *,
        spool: Path | None = None,
        messages_per_hour: int = 1_000_000_000,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory / "configuration"
        self.spool = spool or directory / "spool"
        self.port, self._submission_port = free_port(), free_port()
        self.messages_per_hour = messages_per_hour
        self.clock_offset = 0
        self.min_free_bytes = 0
        self._extra = dict(extra or {})
        self.internet = internet
        key = rsa.generate_private_key(65537, 2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        authority = CertificateAuthority()
        certificate, certificate_key = authority.issue([HOST])
        self.client = ssl.create_default_context(cadata=authority.pem.decode())
        self._observe_port = free_port()
        self._verifier = passwords.verifier(PASSWORD)
        for place, content in (
            (KEYS_DIRECTORY / "key.pem", pem),
            (CERTIFICATE_FILE, certificate),
            (CERTIFICATE_KEY_FILE, certificate_key),
        ):
            (self.directory / place).parent.mkdir(parents=True, exist_ok=True)
            (self.directory / place).write_bytes(content)
        self.write()

    def write(self) -> None:
        """Put the fields in force: at once when the relay runs (it looks four times a second)."""
        config = RelayConfig(
            tenant="reliability",
            hostname=HOST,
            plan=Plan(name="reliability", messages_per_hour=self.messages_per_hour, max_message_bytes=8 << 20),
            delivery=Delivery(
                helo_name="out.example",
                smtp_port=self.internet.port,
                allow_networks=("127.0.0.0/8",),
                max_connections_per_destination=10,
                first_retry_seconds=1,
                max_retry_seconds=MAX_RETRY_SECONDS,
            ),
            submission=Submission(open=True),
            accounts=(Account(name="app", username=USER, verifier=self._verifier),),
            domains=(
                Domain(name=SENDER.partition("@")[2], sending=True, keys=(DkimKey(selector="key", file="key.pem"),)),
            ),
            resolver=Resolver(nameservers=("127.0.0.1",), port=self.internet.dns.port),
            listen=Listen(
                address="127.0.0.1",
                submission_port=self._submission_port,
                submissions_port=self.port,
                observe_port=self._observe_port,
            ),
            notices=Notices(per_sender_per_hour=10_000_000, per_hour=10_000_000),  # all are counted
            suppression=Suppression(enabled=False),  # the recipients that refuse stay in use
            account_pause=AccountPause(enabled=False),
            limits=Limits(min_free_bytes=self.min_free_bytes, max_sessions_per_client=500),
        )
        told = json.loads(encode(config))
        for section, fields in ({"rehearsal": {"clockOffsetSeconds": self.clock_offset}} | self._extra).items():
            told.setdefault(section, {}).update(fields)
        file = self.directory / CONFIG_FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(told))
        fresh.replace(file)


class Victim(enum.Enum):
    """Which of the relay's processes are killed; all the same where there is but one."""

    ALL = "all"
    FIRST = "the first: the one that was started"
    BELOW = "one below it"


@dataclass(slots=True)
class Life:
    """One run of the relay: from when to when, how it ended, and the log it wrote. Times are monotonic."""

    number: int
    log: Path
    started: float
    killed: float | None = None
    ended: float | None = None

    def events(self) -> Iterator[dict[str, Any]]:
        """The lines of its log; a last one that was cut short is left out."""
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as lines:
            for line in lines:
                if line.startswith(b"{") and line.endswith(b"}\n"):
                    event: dict[str, Any] = json.loads(line)
                    yield event


@dataclass(slots=True)
class Relay:
    """The process, life after life."""

    site: Site
    logs: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    lives: list[Life] = field(default_factory=list)
    child: Child | None = None

    @property
    def life(self) -> Life:
        return self.lives[-1]

    async def start(self) -> None:
        """Start it, without waiting until it listens."""
        number = len(self.lives)
        life = Life(number, self.logs / f"relay-{number:04}.log", time.monotonic())
        program = Path(sys.executable).with_name("malote-relay")
        command: list[str | Path] = [
            program,
            "--config",
            self.site.directory,
            "--spool",
            self.site.spool,
            "--grace",
            "5",
        ]
        self.child = await Child.start(command, life.log, environment=self.environment)
        self.lives.append(life)

    async def listens(self) -> None:
        """Wait until clients get in. Raises RunError when it has ended instead."""
        assert self.child is not None
        async with asyncio.timeout(_START_SECONDS):
            while True:
                if self.child.process.returncode is not None:
                    raise RunError(f"the relay ended by itself:\n{self.child.tail()}")
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.site.port)
                except ConnectionError:
                    await asyncio.sleep(0.02)
                else:
                    writer.transport.abort()
                    return

    async def kill(self, victim: Victim = Victim.ALL) -> None:
        """SIGKILL, and wait for the end.

        Where one process is killed the others have a moment to notice, and to go on or to end; then all are killed.
        """
        assert self.child is not None
        if self.child.process.returncode is not None:
            raise RunError(f"the relay ended by itself:\n{self.child.tail()}")
        first = self.child.process.pid
        below = _children(first)
        self.life.killed = time.monotonic()
        if below and victim is not Victim.ALL:
            os.kill(first if victim is Victim.FIRST else below[-1], signal.SIGKILL)
            await asyncio.sleep(_NOTICE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first, signal.SIGKILL)
        await self.child.process.wait()
        await self.site.internet.quiet()
        self.life.ended = time.monotonic()

    async def killed_by(self, shim: Faults) -> None:
        """Have it kill itself between two operations, so that the record is complete, and wait for the end."""
        assert self.child is not None
        shim.dying(True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await self.child.process.wait()
        if self.child.process.returncode is None:  # nothing was to be done: it is between two operations
            await self.kill()
        self.life.killed = self.life.ended = time.monotonic()
        shim.dying(False)

    async def stop(self) -> None:
        """An orderly end; harmless when it does not run."""
        if self.child is not None and self.child.process.returncode is None:
            await self.child.stop()
            self.life.ended = time.monotonic()


def _children(pid: int) -> list[int]:
    """The processes below one, where the relay has any (listen.processes)."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]
