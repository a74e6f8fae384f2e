"""Providing a tenant with its relay: rendering, applying, and what hinders either."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec
import structlog

from malote_operator.api import names
from malote_operator.api.plan import Plan
from malote_operator.api.sendingdomain import SendingDomain
from malote_operator.api.tenant import Tenant
from malote_operator.kube import exact
from malote_operator.kube.apply import secret_data
from malote_operator.kube.client import Object
from malote_operator.kube.errors import ApiError, Conflict, Forbidden, Invalid, NameConflict, NotFound, Transient
from malote_operator.kube.kinds import SECRET
from malote_operator.policy import refusals
from malote_operator.policy.model import DkimPublicKey, DomainDecision, Problem, TenantDecision
from malote_operator.render import relay_config, secrets
from malote_operator.render.children import Material, children
from malote_operator.render.common import COMPONENT_LABEL, RELAY
from malote_relay.config import CONFIG_FILE, configuration_hash

from .certificates import Certificates, Served
from .context import Context, refused, relay_namespace_missing
from .credentials import Credentials, Handed
from .dkimkeys import DkimKeys, Files
from .memory import Memories
from .noticekeys import NoticeKeys, copied
from .returnpaths import ReturnPathSecrets

log = structlog.get_logger(__name__)

ACCOUNT_LABEL = "malote.dev/account"

_T = TypeVar("_T")


@dataclass
class Made:
    """What came of rendering and applying. `forgetful`: T-state cannot be written."""

    config_hash: str = ""
    secrets: str = ""
    handed: Handed = field(default_factory=Handed)
    problems: list[Problem] = field(default_factory=list)
    passwords: dict[str, str] = field(default_factory=dict)
    look_again: dt.datetime | None = None
    notices_key: DkimPublicKey | None = None
    forgetful: bool = False

    def hinder(self, problem: Problem) -> None:
        """Note a problem, once."""
        if problem not in self.problems:
            self.problems.append(problem)


class Provision:
    """Makes what a Tenant needs, and keeps it as it should be."""

    def __init__(
        self,
        context: Context,
        *,
        keys: DkimKeys,
        memories: Memories,
        credentials: Credentials,
        certificates: Certificates,
        return_paths: ReturnPathSecrets,
        notice_keys: NoticeKeys,
        operator_namespace: str,
    ) -> None:
        self._context = context
        self._keys = keys
        self._memories = memories
        self._credentials = credentials
        self._certificates = certificates
        self._return_paths = return_paths
        self._notice_keys = notice_keys
        self._operator_namespace = operator_namespace
        self._written: dict[str, tuple[str, dt.datetime | None]] = {}

    def clear(self) -> None:
        """Forget what was written when (another replica may have written since)."""
        self._written.clear()

    def forget(self, tenant_uid: str) -> None:
        """The tenant is gone."""
        self._written.pop(tenant_uid, None)
        self._notice_keys.forget(tenant_uid)

    def written_at(self, tenant: Tenant) -> dt.datetime | None:
        """When this process wrote the tenant's present configuration; None if it found it so."""
        return self._written.get(tenant.metadata.uid, ("", None))[1]

    async def provide(self, tenant: Tenant, plan: Plan, decision: TenantDecision, made: Made) -> None:
        """Render and apply everything. What one object hinders does not keep the others from being applied.

        Above all not the configuration, by which a suspension reaches the relay: it is written with whatever of
        the rest could be read.
        """
        context = self._context
        try:
            made.forgetful = not await self._tried(self._remember(tenant), made, otherwise=False)
            trusted = await self._tried(self._certificates.trusted(context.now()), made, otherwise=None)
            served = Served()
            if trusted is not None:
                served = await self._tried(self._certificates.of(tenant, context.now()), made, otherwise=served)
            for account in decision.accounts:
                password = await self._tried(
                    self._credentials.password(tenant, account, trusted or b""), made, otherwise=""
                )
                if password:
                    made.passwords[account.name] = password
            files = await self._key_files(tenant, decision, made)
        except NotFound as missing:
            made.hinder(relay_namespace_missing(context.settings, missing))
            return
        config = relay_config.render(
            tenant,
            plan,
            _with_files(decision, files),
            made.passwords,
            context.settings,
            return_paths=secrets.RETURN_PATHS_FILE in files,
            notices_key=made.notices_key,
        )
        objects = children(
            tenant,
            plan,
            decision,
            Material(
                config=config,
                passwords=made.passwords,
                keys=files,
                certificate=served.certificate,
                certificate_key=served.key,
                ca=trusted or b"",
            ),
            context.settings,
            self._operator_namespace,
        )
        keys = names.relay_keys(tenant.metadata.name)
        relays = context.settings.relay_namespace
        own = [one for one in objects if one["metadata"].get("namespace") == relays]
        for wanted in own:
            if trusted is None and ACCOUNT_LABEL in wanted["metadata"]["labels"]:
                continue  # they name the authority to trust: without it they stay as they are
            if (wanted["kind"], wanted["metadata"]["name"]) != (SECRET.name, keys):
                await self._apply(tenant, plan, wanted, made)
        if trusted is not None and not made.forgetful:
            copies = [one for one in objects if one["metadata"].get("namespace") != relays]
            handing = self._credentials.hand_out(tenant, copies, made.passwords)
            made.handed = await self._tried(handing, made, otherwise=made.handed)
        made.secrets = _digest(own)
        made.look_again = served.renew_at

    async def close(self, tenant: Tenant, decision: TenantDecision, made: Made) -> None:
        """There is no plan, but a relay: it goes on by the plan that it had, closed, and frozen if it must be."""
        context, name = self._context, names.relay(tenant.metadata.name)
        live = await self._tried(
            context.applier.find(SECRET, name, context.settings.relay_namespace, tenant.metadata.uid),
            made,
            otherwise=None,
        )
        previous = secret_data(live).get(CONFIG_FILE.name, b"") if live is not None else b""
        config = relay_config.render_without_plan(tenant, _with_files(decision, {}), previous, context.settings)
        if config is None:
            log.error("a relay without a plan has no configuration to go by", tenant=tenant.metadata.name)
            return
        wanted = secrets.relay(tenant, config, context.settings)
        await self._apply(tenant, None, wanted, made)
        made.secrets = _digest([wanted])

    async def _remember(self, tenant: Tenant) -> bool:
        await self._memories.ensure(tenant)
        return True

    async def _key_files(self, tenant: Tenant, decision: TenantDecision, made: Made) -> dict[str, bytes]:
        """The files in `keys/` that the relay can read: a configuration that names others would not be taken in."""
        nothing = Files({})
        pairs = self._with_keys(tenant, decision.domains)
        files = await self._tried(self._keys.private_keys(tenant, pairs), made, otherwise=nothing)
        for conflict in files.conflicts:
            made.hinder(Problem("NameConflict", str(conflict)))
        if files is nothing:
            return {}
        wanted = dict(files.wanted)
        own = await self._tried(self._notice_keys.of(tenant, files.present), made, otherwise=copied(files.present))
        wanted |= {own.file: own.private} if own is not None else {}
        if self._context.settings.bounces.enabled:
            made_with = await self._tried(self._return_paths.of(tenant), made, otherwise=b"")
            wanted |= {secrets.RETURN_PATHS_FILE: made_with} if made_with else {}
        secret = secrets.relay_keys(tenant, wanted, self._context.settings)
        if not await self._apply(tenant, None, secret, made):
            wanted = {name: private for name, private in wanted.items() if files.present.get(name) == private}
        made.notices_key = own.key if own is not None and own.file in wanted else None
        return wanted

    async def _tried(self, step: Awaitable[_T], made: Made, otherwise: _T) -> _T:
        """What `step` gives, or `otherwise` when something hinders that, which is noted."""
        try:
            return await step
        except NameConflict as conflict:
            made.hinder(Problem("NameConflict", str(conflict)))
        except (Invalid, Forbidden) as refusal:
            made.hinder(refused(self._context.settings, refusal))
        return otherwise

    async def _apply(self, tenant: Tenant, plan: Plan | None, wanted: Object, made: Made) -> bool:
        """Make one object right; whether it is. What hinders is noted."""
        context, kind, name = self._context, wanted["kind"], wanted["metadata"]["name"]
        if kind == "StatefulSet":
            wanted = self._with_present_claims(tenant, wanted)
        try:
            applied = await context.applier.ensure(wanted, tenant.metadata.uid)
        except NameConflict as conflict:
            made.hinder(Problem("NameConflict", str(conflict)))
        except NotFound as missing:
            made.hinder(relay_namespace_missing(context.settings, missing))
        except Forbidden as refusal:
            made.hinder(refused(context.settings, refusal))
        except Conflict as conflict:
            log.warning("somebody else keeps changing it", kind=kind, name=name, error=str(conflict))
            made.hinder(
                Problem("ChangedMeanwhile", f"{kind} {name} is being changed by somebody else", permanent=False)
            )
        except Transient:
            raise
        except ApiError as refusal:
            log.error("the API server refused", kind=kind, name=name, error=str(refusal))
            made.hinder(
                refusals.applying(kind, name, plan, refusal.words)
                if plan is not None
                else Problem("ApplyRefused", f"{kind} {name} was refused: {refusal.words}")
            )
        else:
            if applied.changed:
                log.info("applied", kind=kind, name=name, tenant=tenant.metadata.name)
            if (kind, name) == (SECRET.name, names.relay(tenant.metadata.name)):
                self._note_config(tenant, wanted, made, changed=applied.changed)
            return True
        return False

    def _note_config(self, tenant: Tenant, secret: Object, made: Made, *, changed: bool) -> None:
        """What relays should report from now on, and since when."""
        made.config_hash = configuration_hash(secret_data(secret)[CONFIG_FILE.name])
        before, _ = self._written.get(tenant.metadata.uid, ("", None))
        if before != made.config_hash:
            self._written[tenant.metadata.uid] = (made.config_hash, self._context.now() if changed else None)

    def _with_present_claims(self, tenant: Tenant, wanted: Object) -> Object:
        """The StatefulSet with the volumeClaimTemplates that it has: they cannot be changed once it is there.

        Those of an earlier Tenant's would name that one as the owner of the spool, which would be deleted for it.
        """
        present = self._context.cache.set_of(tenant)
        if present is None or not present.claim_templates:
            return wanted
        templates = msgspec.json.decode(present.claim_templates)
        if exact.includes(templates, wanted["spec"]["volumeClaimTemplates"]):
            return wanted
        return wanted | {"spec": wanted["spec"] | {"volumeClaimTemplates": templates}}

    def _with_keys(
        self, tenant: Tenant, decisions: tuple[DomainDecision, ...]
    ) -> list[tuple[DomainDecision, SendingDomain]]:
        by_uid = {one.metadata.uid: one for one in self._context.cache.domains_of(tenant.metadata.name)}
        return [(one, by_uid[one.uid]) for one in decisions if one.uid in by_uid]


def _with_files(decision: TenantDecision, files: dict[str, bytes]) -> TenantDecision:
    """The decision without keys that are lost: the relay would refuse a configuration that names one it lacks."""
    domains = tuple(
        replace(one, keys=tuple(key for key in one.keys if key.file_name(one.domain) in files))
        for one in decision.domains
    )
    return replace(decision, domains=domains)


def _digest(objects: list[Object]) -> str:
    """A digest of the three Secrets that the relay's pods mount."""
    mounted = {
        one["metadata"]["name"]: secret_data(one)
        for one in objects
        if one["kind"] == "Secret" and one["metadata"]["labels"][COMPONENT_LABEL] == RELAY
    }
    text = hashlib.sha256()
    for name, data in sorted(mounted.items()):
        for key, value in sorted(data.items()):
            text.update(f"{name}\0{key}\0{len(value)}\0".encode() + value)
    return text.hexdigest()[:16]
