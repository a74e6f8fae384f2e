"""The configuration directory, loaded as a whole and watched for changes.

The file and every key it names count together: if any of it cannot be used, what is in force stays, and the error is
kept for people to see. A certificate or a password that cannot be used leaves the one in force in place and is told
as an error, but holds nothing else up: a suspension must not wait for it. Without any password the mail waits.

Changes are noticed by looking at the files' inodes, sizes and times, whenever the kernel tells that something
happened in their directories (`changes`), and every few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from malote_relay.changes import Changes
from malote_relay.config import (
    CERTIFICATE_FILE,
    CERTIFICATE_KEY_FILE,
    CONFIG_FILE,
    CREDENTIALS_DIRECTORY,
    KEYS_DIRECTORY,
    ConfigError,
    RelayConfig,
    configuration_hash,
    decode,
)
from malote_relay.delivery.tls.handshake import Handshakes
from malote_relay.returnpath import ReturnPaths
from malote_relay.signing.signer import Signer
from malote_relay.submission.server import tls_context

_MAX_SECRET: Final = 255
"""Octets of a password: what RFC 1929 can carry."""

_log = structlog.get_logger("malote.config")

Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used, with everything it names."""

    config: RelayConfig
    hash: str
    signer: Signer
    notice_signer: Signer
    return_paths: ReturnPaths
    context: ssl.SSLContext
    oldest_key: float | None
    """When the oldest signing key's file was written, in epoch seconds; None when there is no key."""
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The passwords that the configuration names, by their files' names, but for those that cannot be read."""
    left_behind: tuple[str, ...] = ()
    """Why the certificate, or a password, is still the one that was in force before, or is not there at all."""


def load(directory: Path, in_force: Loaded | None = None) -> Loaded:
    """Load all of it; for a certificate or password that cannot be used, the one `in_force`. Raises ConfigError.

    Blocks.
    """
    file = directory / CONFIG_FILE
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    config = decode(text)
    keys = directory / KEYS_DIRECTORY
    signer = Signer.load(config, keys)
    notice_signer = Signer.for_notices(config, keys)
    return_paths = ReturnPaths.load(config, keys)
    written = [_written(keys / key.file) for domain in config.domains for key in domain.keys]
    _check_authorities(config.delivery.tls.authorities)
    left_behind: list[str] = []
    try:
        context = tls_context(directory)
    except ConfigError as error:
        if in_force is None:
            raise
        context = in_force.context
        left_behind.append(str(error))
    before = in_force.credentials if in_force is not None else {}
    credentials = _credentials(config, directory / CREDENTIALS_DIRECTORY, before, left_behind)
    oldest = min(written, default=None)
    return Loaded(
        config,
        configuration_hash(text),
        signer,
        notice_signer,
        return_paths,
        context,
        oldest,
        credentials,
        tuple(left_behind),
    )


def fingerprint(directory: Path) -> Fingerprint:
    """What tells one state of the directory from another without reading the files."""
    # Plain strings and os.stat: this runs every few seconds for as long as the relay lives.
    files = [f"{directory}/{place}" for place in (CONFIG_FILE, CERTIFICATE_FILE, CERTIFICATE_KEY_FILE)]
    for place in (KEYS_DIRECTORY, CREDENTIALS_DIRECTORY):
        folder = f"{directory}/{place}"
        with contextlib.suppress(OSError):
            files += sorted(f"{folder}/{name}" for name in os.listdir(folder))
    states = []
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            continue
        states.append((file, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(states)


class Watcher:
    """Loads anew when something has changed, and hands over what can be used.

    `error` says why the last change could not be: "" when what is in force is what is there.
    """

    def __init__(
        self,
        directory: Path,
        seen: Fingerprint,
        in_force: Loaded,
        apply: Callable[[Loaded], Awaitable[None]],
        failed: Callable[[], None],
    ) -> None:
        self.error = "; ".join(in_force.left_behind)
        self._directory = directory
        self._seen = seen
        self._in_force = in_force
        self._apply = apply
        self._failed = failed

    async def run(self) -> None:
        """Watch until cancelled."""
        places = {self._directory / place.parent for place in (CONFIG_FILE, CERTIFICATE_FILE)}
        places |= {self._directory / place for place in (KEYS_DIRECTORY, CREDENTIALS_DIRECTORY)}
        with Changes(self._directory, sorted(places)) as changes:
            while True:
                await changes.wait()
                await self.look()

    async def look(self) -> None:
        """Look once, and load when something has changed."""
        now = fingerprint(self._directory)
        if now == self._seen:
            return
        # The fingerprint from before loading is kept: a change during it is seen at the next look.
        self._seen = now
        try:
            loaded = await asyncio.to_thread(load, self._directory, self._in_force)
            said = "; ".join(loaded.left_behind)
            if said:  # told no later than the hash of what is in force beside it
                self.error = said
                self._failed()
                _log.error("certificate or password not usable: what was in force stays", error=said)
            await self._apply(loaded)
            self._in_force = loaded
            self.error = said
        except ConfigError as error:
            self.error = str(error)
            self._failed()
            _log.error("configuration not usable: the one in force stays", error=self.error)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            self._failed()
            _log.exception("configuration could not be applied")


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error


def _check_authorities(file: str) -> None:
    if file:
        try:
            Handshakes(file).verified()
        except OSError as error:  # ssl's errors are among them
            raise ConfigError(
                f"delivery.tls.authorities: {file} cannot be used: {error.strerror or error}"
            ) from error


def _credentials(
    config: RelayConfig, folder: Path, before: Mapping[str, str], left_behind: list[str]
) -> dict[str, str]:
    """The passwords by file name; one that cannot be read is the one from `before`, or left out."""
    servers = (config.delivery.smart_host, config.delivery.socks5)
    found: dict[str, str] = {}
    for name in dict.fromkeys(one.password_file for one in servers if one and one.password_file):
        try:
            found[name] = _secret(folder / name)
        except ConfigError as error:
            left_behind.append(str(error))
            if name in before:
                found[name] = before[name]
    return found


def _secret(file: Path) -> str:
    """A password: the file's text without its line end. Its octets are in no error's words."""
    try:
        text = file.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not text in UTF-8: write the password and nothing else") from error
    password = text.removesuffix("\n").removesuffix("\r")
    if not password or len(password.encode()) > _MAX_SECRET or not password.isprintable():
        raise ConfigError(f"{file} must hold one line of 1 to {_MAX_SECRET} printable characters: the password")
    return password
