"""The relays' certificates where the operator itself issues them: an authority of its own, a certificate a tenant.

The authority's key is in Secret malote-ca; its certificate alone also in ConfigMap malote-ca, for people to hand
to clients. A certificate is renewed after two thirds of its life.

Clients trust the authority, so it is made once and kept: both objects are put back from memory. Should the key
be lost all the same (Secret deleted while no operator ran), certificates that are good stay in use, and only when
one has to be issued is another authority made, with a warning. Clients are then told to trust both.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from malote_operator.api import names
from malote_operator.api.tenant import Tenant
from malote_operator.kube import exact
from malote_operator.kube.apply import MANAGED_BY, Applier, foreign, secret_data
from malote_operator.kube.client import FIELD_MANAGER, Api, Object
from malote_operator.kube.errors import AlreadyExists, ApiError, NameConflict
from malote_operator.kube.events import Events
from malote_operator.kube.kinds import CONFIG_MAP, SECRET
from malote_operator.settings import Settings, TlsMode

from . import material
from .material import Certificate

log = structlog.get_logger(__name__)

AUTHORITY = "malote-ca"
_CERTIFICATE = "ca.crt"
_LABELS = {
    "app.kubernetes.io/name": "malote",
    "app.kubernetes.io/component": "certificate-authority",
    "app.kubernetes.io/part-of": "malote",
    MANAGED_BY: FIELD_MANAGER,
}


@dataclass(frozen=True, slots=True)
class Served:
    """A relay's certificate and when to look again; empty in other modes."""

    certificate: bytes = b""
    key: bytes = b""
    renew_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class _Authority:
    """`own.key` is b"" while it is lost. `trusted`: PEM, its certificate and those of earlier ones."""

    own: Certificate
    trusted: bytes


class Certificates:
    """Issues and renews."""

    def __init__(self, api: Api, applier: Applier, settings: Settings, events: Events) -> None:
        self._api = api
        self._applier = applier
        self._settings = settings
        self._events = events
        self._authority: _Authority | None = None
        self._fresh = False
        self._lock = asyncio.Lock()

    def clear(self) -> None:
        """Read the authority again; what is remembered of it counts only if it is gone."""
        self._fresh = False

    async def trusted(self, now: dt.datetime) -> bytes:
        """The authorities that clients must trust (PEM); empty where the operator issues nothing."""
        if self._settings.tls.mode is not TlsMode.OPERATOR:
            return b""
        async with self._lock:
            return (await self._known(now)).trusted

    async def of(self, tenant: Tenant, now: dt.datetime) -> Served:
        """The tenant's certificate: the present one if it will do, else a new one (to be applied by the caller)."""
        if self._settings.tls.mode is not TlsMode.OPERATOR:
            return Served()
        wanted = names.certificate_names(tenant.metadata.name, self._settings)
        present = await self._present(tenant)
        if present is None or not material.serves(present, await self.trusted(now), wanted, now):
            authority = await self._able(now)
            present = await asyncio.to_thread(material.issue, authority.own, wanted, now)
            log.info("issued a certificate", tenant=tenant.metadata.name, names=wanted)
        return Served(present.certificate, present.key, material.renewal_time(present.certificate))

    async def ensure(self, now: dt.datetime) -> None:
        """Put the authority's Secret and ConfigMap back, or say again that its key is lost; failures are logged."""
        if self._authority is None:
            return  # nobody has needed it yet
        try:
            async with self._lock:
                self._fresh = False
                await self._known(now)
        except (NameConflict, ApiError) as error:
            log.error("the certificate authority cannot be put right now", error=str(error))

    async def _present(self, tenant: Tenant) -> Certificate | None:
        name, namespace = names.tls(tenant.metadata.name), self._settings.relay_namespace
        live = await self._applier.find(SECRET, name, namespace, tenant.metadata.uid)
        return None if live is None else _read(live)

    async def _known(self, now: dt.datetime) -> _Authority:
        """The authority as it is there, put right. Called with the lock held."""
        if self._authority is None or not self._fresh:
            live = await self._find()
            listed = await self._listed(now)
            remembered = self._authority.own if self._authority is not None else None
            if live is not None and material.fits(_read(live)):
                own = _read(live)
            elif remembered is not None and remembered.key and material.valid(remembered.certificate, now):
                own = remembered
                log.warning("the certificate authority was gone: put back from memory", secret=AUTHORITY)
            elif listed:
                own = Certificate(listed[0], b"")
                await self._lament("while certificates that it issued are good, they stay in use")
            else:
                own = await self._new(now)
            self._authority = await self._keep(own, listed, live, now)
            self._fresh = True
        return self._authority

    async def _able(self, now: dt.datetime) -> _Authority:
        """The authority with its key: another one if the key is lost."""
        async with self._lock:
            authority = await self._known(now)
            if authority.own.key:
                return authority
            self._fresh = False
            authority = await self._known(now)  # somebody may have brought the Secret back
            if not authority.own.key:
                await self._lament(
                    "a certificate has to be issued, so another authority was made. Hand the new"
                    f" {_CERTIFICATE} of ConfigMap {AUTHORITY} to all clients that do not read it from their Secrets"
                )
                live = await self._find()
                own = await self._new(now)
                listed = material.valid(authority.trusted, now)
                authority = self._authority = await self._keep(own, listed, live, now)
            return authority

    async def _keep(
        self, own: Certificate, listed: Sequence[bytes], live: Object | None, now: dt.datetime
    ) -> _Authority:
        """Write what is known of the authority to both objects, where they say otherwise."""
        trusted = b"".join(dict.fromkeys((*material.valid(own.certificate, now), *listed)))
        if own.key:
            if live is not None and not exact.has_manager(live, FIELD_MANAGER):
                # Restored from a backup: ours by its label, but a restoration has another field manager.
                await self._api.apply(SECRET, self._secret(own))
            await self._applier.ensure(self._secret(own), "")
        await self._applier.ensure(self._config_map(trusted), "")
        return _Authority(own, trusted)

    async def _new(self, now: dt.datetime) -> Certificate:
        name = f"Malote relays in {self._settings.relay_namespace}"
        made = await asyncio.to_thread(material.new_authority, name, now)
        try:
            await self._api.create(SECRET, self._secret(made))
        except AlreadyExists:
            present = await self._find()
            if present is not None and material.fits(_read(present)):
                return _read(present)  # another replica was quicker
        log.warning("made the relays' certificate authority", secret=AUTHORITY)
        return made

    async def _find(self) -> Object | None:
        namespace = self._settings.relay_namespace
        live = await self._api.find(SECRET, AUTHORITY, namespace)
        if live is None or live["metadata"].get("labels", {}).get(MANAGED_BY) == FIELD_MANAGER:
            return live
        if why := foreign(live, "", namespace):
            raise NameConflict(SECRET.name, namespace, AUTHORITY, why)
        return live

    async def _listed(self, now: dt.datetime) -> tuple[bytes, ...]:
        """The certificates that ConfigMap malote-ca, as the operator wrote it, and this process know."""
        live = await self._applier.find(CONFIG_MAP, AUTHORITY, self._settings.relay_namespace, "")
        if live is not None and exact.contested(live, FIELD_MANAGER):
            live = None  # what others wrote into it must not become what clients trust
        text = str(((live or {}).get("data") or {}).get(_CERTIFICATE, "")).encode()
        remembered = self._authority.trusted if self._authority is not None else b""
        return tuple(dict.fromkeys((*material.valid(text, now), *material.valid(remembered, now))))

    async def _lament(self, what_now: str) -> None:
        text = (
            f"Secret {self._settings.relay_namespace}/{AUTHORITY} is gone, and with it the key of the authority that"
            f" clients trust: bring it back from a backup if you can; {what_now}"
        )
        log.error("the certificate authority's key is lost", advice=text)
        await self._events.record(
            self._object("ConfigMap"), reason="AuthorityLost", note=text, action="IssueCertificate", warning=True
        )

    def _secret(self, authority: Certificate) -> Object:
        return self._object("Secret") | {
            "type": "kubernetes.io/tls",
            "data": {
                "tls.crt": base64.b64encode(authority.certificate).decode(),
                "tls.key": base64.b64encode(authority.key).decode(),
            },
        }

    def _config_map(self, certificates: bytes) -> Object:
        return self._object("ConfigMap") | {"data": {_CERTIFICATE: certificates.decode()}}

    def _object(self, kind: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": AUTHORITY, "namespace": self._settings.relay_namespace, "labels": _LABELS},
        }


def _read(secret: Object) -> Certificate:
    data = secret_data(secret)
    return Certificate(data.get("tls.crt", b""), data.get("tls.key", b""))


def earliest(times: Sequence[dt.datetime | None]) -> dt.datetime | None:
    """The earliest of the times that are set."""
    return min((time for time in times if time is not None), default=None)
