"""The DKIM keys of relays' own messages: one for each tenant, made once and never anew while anything holds it.

It signs for the relay's EHLO name, from which notices to senders and TLS reports come. Its Secret has a fixed name,
so that nothing has to be remembered for it to be found again; the name it signs for may change, the key stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from malote_operator.api import names
from malote_operator.api.tenant import Tenant
from malote_operator.kube.apply import Applier
from malote_operator.kube.client import Api, Object
from malote_operator.kube.errors import AlreadyExists
from malote_operator.kube.kinds import SECRET
from malote_operator.policy.model import DkimPublicKey
from malote_operator.render import secrets
from malote_operator.settings import Settings

from . import material
from .context import utc_now
from .material import DkimPair

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NoticeKey:
    """The key, and its file in the relay's `keys/`."""

    key: DkimPublicKey
    private: bytes

    @property
    def file(self) -> str:
        """The file's name."""
        return self.key.file_name(secrets.NOTICES)


@dataclass(frozen=True, slots=True)
class _Known:
    """A key that was read at `seen` (of the monotonic clock); of the private key only a digest stays in memory."""

    key: DkimPublicKey
    digest: bytes
    seen: float


class NoticeKeys:
    """Makes and reads them."""

    def __init__(self, api: Api, applier: Applier, settings: Settings) -> None:
        self._api = api
        self._applier = applier
        self._settings = settings
        self._known: dict[str, _Known] = {}
        self._clock = time.monotonic

    def clear(self) -> None:
        """Read everything again."""
        self._known.clear()

    def forget(self, tenant_uid: str) -> None:
        """The tenant is gone, and its key with it."""
        self._known.pop(tenant_uid, None)

    async def of(self, tenant: Tenant, present: Mapping[str, bytes]) -> NoticeKey | None:
        """The tenant's key; None where somebody put one that cannot be used. Raises NameConflict.

        `present`: what Secret T-relay-keys holds. Its copy is believed if it is the key whose digest is known; else,
        and regularly, the key's own Secret is read. If that one is lost, it is made again from the copy, and if it
        cannot be read, the copy is used: the record in the DNS stays valid.
        """
        uid = tenant.metadata.uid
        known = self._known.get(uid)
        if known is not None and self._clock() - known.seen <= self._settings.resync_seconds:
            copy = present.get(known.key.file_name(secrets.NOTICES), b"")
            if copy and _digest(copy) == known.digest:
                return NoticeKey(known.key, copy)
        live = await self._find(tenant) or await self._make(tenant, present)
        try:
            key, private = secrets.read_notices_dkim(live or {})
            if material.dkim_pair(private).selector != key.selector:
                raise ValueError("the selector is another key's")
        except (KeyError, ValueError) as error:
            name = names.notices_dkim(tenant.metadata.name)
            log.error("a relay's own DKIM key cannot be read: delete this Secret", secret=name, error=str(error))
            return copied(present)
        self._known[uid] = _Known(key, _digest(private), self._clock())
        return NoticeKey(key, private)

    async def _make(self, tenant: Tenant, present: Mapping[str, bytes]) -> Object | None:
        copy = copied(present)
        made = copy or _key(await asyncio.to_thread(material.new_dkim_pair))
        body = secrets.notices_dkim(tenant, made.key, made.private, self._settings)
        try:
            live = await self._api.create(SECRET, body)
        except AlreadyExists:
            return await self._find(tenant)  # another replica was quicker, or it is not ours
        if copy is None:
            log.info("made a relay's own DKIM key", tenant=tenant.metadata.name, selector=made.key.selector)
        else:
            log.warning("a relay's own DKIM key was gone: made again from its copy", tenant=tenant.metadata.name)
        return live

    async def _find(self, tenant: Tenant) -> Object | None:
        name = names.notices_dkim(tenant.metadata.name)
        return await self._applier.find(SECRET, name, self._settings.relay_namespace, tenant.metadata.uid)


def copied(present: Mapping[str, bytes]) -> NoticeKey | None:
    """The key as Secret T-relay-keys has it, where it is one; when it was made is not known from that."""
    for name, private in sorted(present.items()):
        if name.endswith(f".{secrets.NOTICES}.pem"):
            try:
                pair = material.dkim_pair(private)
            except ValueError:
                continue
            if (found := _key(pair)).file == name:
                return found
    return None


def _key(pair: DkimPair) -> NoticeKey:
    key = DkimPublicKey(pair.selector, pair.public_key, utc_now().replace(microsecond=0))
    return NoticeKey(key, pair.private_pem)


def _digest(private: bytes) -> bytes:
    return hashlib.blake2b(private, digest_size=16).digest()
