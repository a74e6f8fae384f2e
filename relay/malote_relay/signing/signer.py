"""Signs messages: one DKIM-Signature field for each key of the domain, relaxed/relaxed, the whole body (no l=)."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Self

from malote_relay.config import ConfigError, RelayConfig
from malote_relay.signing import canonical, fields, keys
from malote_relay.signing.keys import SigningKey
from malote_relay.signing.threads import Threads

_BLOCK: Final = 256 * 1024
_LINE: Final = 76
_threads: Final = Threads(max(2, min(4, os.cpu_count() or 1)), "dkim")


class Signer:
    """Signs for the domains of one configuration. Immutable: a new configuration makes a new one."""

    def __init__(self, domains: Mapping[str, Sequence[SigningKey]], clock: Callable[[], float] = time.time) -> None:
        self._domains = {domain: tuple(own) for domain, own in domains.items()}
        self._clock = clock

    @classmethod
    def load(cls, config: RelayConfig, keys_directory: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Read every key the configuration names. Raises ConfigError naming the file and what is wrong."""
        domains = {}
        for domain in config.domains:
            if domain.sending and not domain.keys:
                raise ConfigError(f"relay.json: domains: {domain.name} may send but has no DKIM key")
            domains[domain.name] = [keys.load(key.selector, keys_directory / key.file) for key in domain.keys]
        return cls(domains, clock)

    @classmethod
    def for_notices(cls, config: RelayConfig, keys_directory: Path) -> Self:
        """The signer of the relay's own messages, which come from its host name. Raises ConfigError like `load`."""
        own = [keys.load(key.selector, keys_directory / key.file) for key in config.notices.keys]
        return cls({config.delivery.helo_name: own})

    def has_key(self, domain: str) -> bool:
        """Whether anything can be signed for the domain."""
        return bool(self._domains.get(domain))

    async def sign(self, domain: str, content: bytes | Path) -> bytes:
        """The DKIM-Signature fields to put before `content` (a message with CRLF line ends, or a file of one).

        Folded, each with its CRLF. Raises KeyError for a domain that has no key.
        """
        return await _threads.run(partial(signature_fields, domain, self._keys(domain), content, self._now()))

    def sign_here(self, domain: str, content: bytes) -> bytes:
        """The same in the calling thread, for a process that has nothing better to do meanwhile."""
        return signature_fields(domain, self._keys(domain), content, self._now())

    def _keys(self, domain: str) -> Sequence[SigningKey]:
        own = self._domains[domain]
        if not own:
            raise KeyError(domain)
        return own

    def _now(self) -> int:
        return int(self._clock())


def signature_fields(domain: str, own: Sequence[SigningKey], content: bytes | Path, timestamp: int) -> bytes:
    """What `Signer.sign` gives; blocks."""
    if isinstance(content, bytes):
        header, _, body = (
            content.partition(b"\r\n\r\n") if not content.startswith(b"\r\n") else (b"", b"", content[2:])
        )
        digest = canonical.body_hash(body)
    else:
        header, digest = _hash_file(content)
    names, text = fields.select(canonical.split_fields(header))
    return b"".join(_signature_field(domain, key, timestamp, names, text, digest) for key in own)


def _hash_file(path: Path) -> tuple[bytes, bytes]:
    """Header and body hash of a message in a file, read block by block."""
    with path.open("rb", buffering=0) as file:
        blocks = iter(lambda: file.read(_BLOCK), b"")
        start = b""
        for block in blocks:
            start += block
            if start.startswith(b"\r\n") or b"\r\n\r\n" in start:
                break
        header, _, rest = start.partition(b"\r\n\r\n") if not start.startswith(b"\r\n") else (b"", b"", start[2:])

        def body() -> Iterator[bytes]:
            yield rest
            yield from blocks

        return header, canonical.body_hash(body())


def _signature_field(
    domain: str, key: SigningKey, timestamp: int, names: Sequence[bytes], text: bytes, digest: bytes
) -> bytes:
    tags = (
        b"v=1; a=%s; c=relaxed/relaxed;" % key.algorithm,
        b"d=%s; s=%s;" % (domain.encode("ascii"), key.selector.encode("ascii")),
        b"t=%d;" % timestamp,
        _folded_list(b"h=", names) + b";",
        b"bh=%s;" % base64.b64encode(digest),
        b"b=",
    )
    unsigned = b" " + b"\r\n ".join(tags)
    # RFC 6376 section 3.7: the field itself comes last, its b= empty, without a CRLF.
    data = text + b"dkim-signature:" + canonical.field_value(unsigned)
    signature = base64.b64encode(key.sign(data))
    lines = [signature[start : start + _LINE - 3] for start in range(0, len(signature), _LINE - 3)]
    return b"DKIM-Signature:" + unsigned + b"\r\n ".join(lines) + b"\r\n"


def _folded_list(tag: bytes, names: Sequence[bytes]) -> bytes:
    """A colon-separated list in lines that are not too long."""
    lines = [tag]
    for number, name in enumerate(names):
        item = name if number == 0 else b":" + name
        if len(lines[-1]) + len(item) > _LINE:
            lines.append(b"")
        lines[-1] += item
    return b"\r\n ".join(lines)
