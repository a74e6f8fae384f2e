"""DKIM keys: made once per domain, kept in one immutable Secret each, never made anew while that exists.

A key belongs to a tenant's domain. Its Secret is found by name: T-state remembers the selector, and should that
be lost, the SendingDomain's status shows it. (The operator has no right to list Secrets, on purpose.)
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import structlog

from malote_operator.api import names
from malote_operator.api.sendingdomain import Purpose, SendingDomain
from malote_operator.api.tenant import Tenant
from malote_operator.kube.apply import Applier, secret_data
from malote_operator.kube.client import Api
from malote_operator.kube.errors import AlreadyExists, NameConflict
from malote_operator.kube.kinds import SECRET
from malote_operator.policy.model import DkimPublicKey, DomainDecision
from malote_operator.render import secrets
from malote_operator.settings import Settings

from . import material
from .context import utc_now

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Files:
    """What should be in Secret T-relay-keys, PEM by file name, and what is `present` in it."""

    wanted: dict[str, bytes]
    present: dict[str, bytes] = field(default_factory=dict)
    conflicts: tuple[NameConflict, ...] = ()


class DkimKeys:
    """The keys of all domains; of private keys only digests stay in memory."""

    def __init__(self, api: Api, applier: Applier, settings: Settings) -> None:
        self._api = api
        self._applier = applier
        self._settings = settings
        self._known: dict[tuple[str, str], tuple[DkimPublicKey, ...]] = {}
        self._digests: dict[str, bytes] = {}
        self._seen: dict[str, float] = {}
        self._clock = time.monotonic

    def clear(self) -> None:
        """Read everything again."""
        self._known.clear()
        self._digests.clear()

    async def of(self, tenant: Tenant, domain: SendingDomain, selectors: Iterable[str]) -> tuple[DkimPublicKey, ...]:
        """Those of the domain's keys that `selectors` or its status name, oldest first. Raises NameConflict."""
        place = (tenant.metadata.uid, domain.spec.domain)
        # That there is none is not remembered: it may be so for want of hints, when a second SendingDomain of the
        # same domain is looked at first, and the key of the first one must not be made anew for that.
        if not self._known.get(place):
            hints = dict.fromkeys((*selectors, *_shown(domain)))
            found = [await self._read(tenant, domain, selector) for selector in hints]
            keys = [key for key in found if key is not None]
            self._known[place] = tuple(sorted(keys, key=lambda key: (key.created, key.selector)))
        return self._known[place]

    async def make(
        self, tenant: Tenant, domain: SendingDomain, remember: Callable[[str], Awaitable[object]]
    ) -> DkimPublicKey:
        """Make the domain's key. `remember` gets the selector before the Secret is made: none is orphaned."""
        pair = await asyncio.to_thread(material.new_dkim_pair)
        key = DkimPublicKey(pair.selector, pair.public_key, utc_now().replace(microsecond=0))
        await remember(key.selector)
        await self._keep(tenant, domain, key, pair.private_pem)
        self._known[tenant.metadata.uid, domain.spec.domain] = (key,)
        log.info("made a DKIM key", tenant=tenant.metadata.name, domain=domain.spec.domain, selector=key.selector)
        return key

    async def private_keys(self, tenant: Tenant, domains: Iterable[tuple[DomainDecision, SendingDomain]]) -> Files:
        """The files for all keys of these domains. Raises NameConflict if T-relay-keys itself is not ours.

        What that Secret holds already is believed if it is the key whose digest is known; else, and regularly, the
        key's own Secret is read. If that one is lost and the copy is right, it is made again from the copy: the
        record in the tenant's DNS stays valid.
        """
        copy = await self._applier.find(
            SECRET, names.relay_keys(tenant.metadata.name), self._settings.relay_namespace, tenant.metadata.uid
        )
        held = secret_data(copy) if copy is not None else {}
        files: dict[str, bytes] = {}
        conflicts: list[NameConflict] = []
        for decision, domain in domains:
            for key in decision.keys:
                name = key.file_name(decision.domain)
                private = held.get(name, b"")
                trusted = private and self._digests.get(key.selector) == _digest(private)
                if not trusted or self._clock() - self._seen.get(key.selector, 0.0) > self._settings.resync_seconds:
                    try:
                        private = await self._master(tenant, domain, key, private)
                    except NameConflict as conflict:
                        conflicts.append(conflict)
                        private = private if trusted or _selector(private) == key.selector else b""
                if private:
                    files[name] = private
        return Files(files, held, tuple(conflicts))

    async def release(self, tenant: Tenant, selectors: Iterable[str]) -> None:
        """Delete keys whose SendingDomain is gone."""
        for selector in selectors:
            name = names.dkim_key(tenant.metadata.name, selector)
            await self._applier.delete(SECRET, name, self._settings.relay_namespace, tenant.metadata.uid)
            self._digests.pop(selector, None)
            self._seen.pop(selector, None)
        for place, keys in list(self._known.items()):
            if place[0] == tenant.metadata.uid and any(key.selector in selectors for key in keys):
                del self._known[place]

    def forget(self, tenant_uid: str) -> None:
        """The tenant is gone, and its keys with it."""
        for place in [place for place in self._known if place[0] == tenant_uid]:
            for key in self._known.pop(place):
                self._digests.pop(key.selector, None)
                self._seen.pop(key.selector, None)

    async def _read(self, tenant: Tenant, domain: SendingDomain, selector: str) -> DkimPublicKey | None:
        name = names.dkim_key(tenant.metadata.name, selector)
        live = await self._applier.find(SECRET, name, self._settings.relay_namespace, tenant.metadata.uid)
        if live is None:
            return None
        try:
            of_domain, key, private = secrets.read_dkim_key(live)
        except (KeyError, ValueError) as error:
            log.error("a DKIM key's Secret cannot be read", secret=name, error=str(error))
            return None
        self._digests[key.selector] = _digest(private)
        return key if of_domain == domain.spec.domain else None

    async def _master(self, tenant: Tenant, domain: SendingDomain, key: DkimPublicKey, copy: bytes) -> bytes:
        name = names.dkim_key(tenant.metadata.name, key.selector)
        live = await self._applier.find(SECRET, name, self._settings.relay_namespace, tenant.metadata.uid)
        if live is not None:
            try:
                _, _, private = secrets.read_dkim_key(live)
            except (KeyError, ValueError) as error:
                log.error("a DKIM key's Secret cannot be read", secret=name, error=str(error))
                return copy if _selector(copy) == key.selector else b""
            self._digests[key.selector] = _digest(private)
            self._seen[key.selector] = self._clock()
            return private
        if copy and _selector(copy) == key.selector:
            await self._keep(tenant, domain, key, copy)
            log.warning("a DKIM key's Secret was gone: made again from the relay's copy", secret=name)
            return copy
        log.error("a DKIM key is lost: the domain gets another one", secret=name, domain=domain.spec.domain)
        self._known.pop((tenant.metadata.uid, domain.spec.domain), None)
        return b""

    async def _keep(self, tenant: Tenant, domain: SendingDomain, key: DkimPublicKey, private: bytes) -> None:
        body = secrets.dkim_key(tenant, domain, key, private, self._settings)
        try:
            await self._api.create(SECRET, body)
        except AlreadyExists:
            # The name derives from the key, so this is the same key, or something that is not ours (NameConflict).
            await self._read(tenant, domain, key.selector)
        self._digests[key.selector] = _digest(private)


def _shown(domain: SendingDomain) -> Iterable[str]:
    """The selector in the status's DKIM record, "SELECTOR._domainkey.DOMAIN"."""
    return (
        record.name.partition("._domainkey.")[0]
        for record in domain.status.records
        if record.purpose is Purpose.DKIM and "._domainkey." in record.name
    )


def _selector(private_pem: bytes) -> str:
    try:
        return material.dkim_pair(private_pem).selector
    except ValueError:
        return ""


def _digest(private: bytes) -> bytes:
    return hashlib.blake2b(private, digest_size=16).digest()
