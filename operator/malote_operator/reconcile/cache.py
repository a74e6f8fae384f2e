"""What the watches told: resources as typed structs, of children only what is needed to notice a change.

A live StatefulSet as Python dictionaries takes 29 KB; its digest takes a hundred bytes. `update` says which keys
an object concerns, and says nothing when only the server's book-keeping changed, so that the operator's own
status writes do not wake it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from malote_operator.api.domainclaim import DomainClaim
from malote_operator.api.meta import Metadata
from malote_operator.api.plan import Plan
from malote_operator.api.sendingdomain import SendingDomain
from malote_operator.api.tenant import Tenant
from malote_operator.kube import exact
from malote_operator.kube.apply import Name
from malote_operator.kube.client import Object
from malote_operator.kube.kinds import (
    CONFIG_MAP,
    DOMAIN_CLAIM,
    NETWORK_POLICY,
    PLAN,
    POD,
    SENDING_DOMAIN,
    SERVICE,
    STATEFUL_SET,
    TENANT,
    Kind,
)
from malote_operator.policy.ranking import Ranking, rank

from .queue import Key

log = structlog.get_logger(__name__)

TENANT_LABEL = "malote.dev/tenant"

CHILDREN = (STATEFUL_SET, SERVICE, NETWORK_POLICY, CONFIG_MAP)
"""Kinds of children that are watched in the relay namespace, by label."""

GONE_REMEMBERED = 10_000
"""Of so many objects that went last it is known when."""

_GIVING_UP = "malote-relay: "
"""What the last line of a relay begins with that ends by itself (`malote_relay.main`)."""

_Resource = Plan | Tenant | SendingDomain | DomainClaim
_SORTS: dict[str, type[_Resource]] = {
    PLAN.name: Plan,
    TENANT.name: Tenant,
    SENDING_DOMAIN.name: SendingDomain,
    DOMAIN_CLAIM.name: DomainClaim,
}


@dataclass(frozen=True, slots=True)
class RelayPod:
    """What is known of a relay's pod. `trouble` says why it does not run, where the API server knows."""

    name: str
    uid: str
    tenant: str
    address: str = ""
    ready: bool = False
    terminating: bool = False
    revision: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class RelaySet:
    """What is known of a relay's StatefulSet; its volumeClaimTemplates (JSON) because they cannot be changed.

    `owners`: uids. That of a Tenant which was deleted stays for a while beside a new one of the same name.
    """

    replicas: int = 0
    ready_replicas: int = 0
    claim_templates: bytes = b""
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object that the operator cannot make sense of: why, and what is needed to say so in its status."""

    metadata: Metadata
    status: Object
    why: str


@dataclass(frozen=True, slots=True)
class Wake:
    """A key to look at. `urgent`: somebody changed what is wanted (do not wait for a back-off)."""

    key: Key
    urgent: bool = False


@dataclass(slots=True)
class _Child:
    digest: bytes
    tenant: str
    version: int


class Cache:
    """The present state as far as watches and listings have told. Used from one event loop only."""

    def __init__(self) -> None:
        self.plans: dict[str, Plan] = {}
        self.tenants: dict[str, Tenant] = {}
        self.domains: dict[tuple[str, str], SendingDomain] = {}
        self.claims: dict[str, DomainClaim] = {}
        self.pods: dict[str, RelayPod] = {}
        self.sets: dict[str, RelaySet] = {}
        self.unreadable: dict[Key, Unreadable] = {}
        self._children: dict[Name, _Child] = {}
        self._versions: dict[Name, int] = {}
        # An answer or a page of a listing may come behind the watch's word that its object is gone.
        self._gone: dict[Name, int] = {}
        self._domains_of: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        self._tenants_of: defaultdict[str, set[str]] = defaultdict(set)
        self._pods_of: defaultdict[str, set[str]] = defaultdict(set)
        self._wanting: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        self._rankings: dict[str, Ranking] = {}

    def domains_of(self, tenant: str) -> tuple[SendingDomain, ...]:
        """Every SendingDomain that names the tenant, in a stable order."""
        return tuple(self.domains[key] for key in sorted(self._domains_of.get(tenant, ())))

    def ranking(self, tenant: Tenant) -> Ranking:
        """Which of the tenant's SendingDomains come first; the same object as long as nothing about that changes."""
        name = tenant.metadata.name
        if (ranking := self._rankings.get(name)) is None:
            ranking = self._rankings[name] = rank(tenant, self.domains_of(name))
        return ranking

    def in_the_dark(self, tenant: str) -> bool:
        """Whether the tenant or its plan is there, but nothing of it was ever understood by this process."""
        known = self.tenants.get(tenant)
        if known is None:
            return Key(TENANT.name, "", tenant) in self.unreadable
        plan = known.spec.plan_ref.name
        return plan not in self.plans and Key(PLAN.name, "", plan) in self.unreadable

    def hides_domains(self, tenant: Tenant) -> bool:
        """Whether a SendingDomain in the tenant's namespaces was never understood by this process."""
        return any(
            key.kind == SENDING_DOMAIN.name
            and key.namespace in tenant.spec.namespaces
            and (key.namespace, key.name) not in self.domains
            for key in self.unreadable
        )

    def present_domain_uids(self, tenant: str) -> frozenset[str]:
        """Those of SendingDomains whose keys and claims must be kept: readable ones of the tenant that stay, and
        every unreadable one (nobody knows whose it is)."""
        own = (one.metadata for one in self.domains_of(tenant))
        return self.unreadable_uids() | {one.uid for one in own if one.deletion_timestamp is None}

    def unreadable_uids(self) -> frozenset[str]:
        """The uids of the objects that cannot be made sense of."""
        return frozenset(one.metadata.uid for one in self.unreadable.values())

    def tenants_of(self, plan: str) -> tuple[str, ...]:
        """The names of the tenants on a plan."""
        return tuple(sorted(self._tenants_of.get(plan, ())))

    def pods_of(self, tenant: str) -> tuple[RelayPod, ...]:
        """The tenant's relay pods, by name."""
        return tuple(self.pods[name] for name in sorted(self._pods_of.get(tenant, ())))

    def set_of(self, tenant: Tenant) -> RelaySet | None:
        """The StatefulSet of the tenant's relay, unless it is that of another Tenant, which had the same name."""
        found = self.sets.get(tenant.metadata.name)
        if found is None or (found.owners and tenant.metadata.uid not in found.owners):
            return None
        return found

    def domain_by_uid(self, tenant: str, uid: str) -> SendingDomain | None:
        """The tenant's SendingDomain with that uid."""
        return next((one for one in self.domains_of(tenant) if one.metadata.uid == uid), None)

    def live_digest(self, name: Name) -> bytes | None:
        """The digest of a watched child as it is now; None if it is not there or its kind is not watched."""
        child = self._children.get(name)
        return None if child is None else child.digest

    def names(self, kind: Kind) -> Iterator[Name]:
        """What is known of a kind, as (kind, namespace, name)."""
        return (name for name in list(self._versions) if name[0] == kind.name)

    def version(self, name: Name) -> int:
        """The resource version seen last."""
        return self._versions.get(name, 0)

    def update(self, kind: Kind, obj: Object, *, deleted: bool = False) -> list[Wake]:
        """Take in an object as read, watched or written; returns the keys that should look at it."""
        metadata = obj["metadata"]
        name: Name = (kind.name, metadata.get("namespace", ""), metadata["name"])
        version = resource_version(metadata.get("resourceVersion", ""))
        if version < self._versions.get(name, 0) or version <= self._gone.get(name, -1):
            return []  # late news
        if deleted:
            return self.remove(name, version)
        self._versions[name] = version
        self._gone.pop(name, None)
        if kind is POD:
            return self._pod(obj)
        if kind.name not in _SORTS:
            return self._child(kind, name, obj, version)
        try:
            resource = _understood(kind, obj)
        except msgspec.ValidationError as error:
            return self._not_understood(Key(*name), obj, str(error))
        self.unreadable.pop(Key(*name), None)
        match resource:
            case Plan():
                return self._plan(resource)
            case Tenant():
                return self._tenant(resource)
            case SendingDomain():
                return self._domain(resource)
            case _:
                return self._claim(resource)

    def remove(self, name: Name, version: int = 0) -> list[Wake]:
        """An object is gone, since `version` if that is known; returns the keys that should know."""
        kind, namespace, own_name = name
        self._versions.pop(name, None)
        if version:
            self._gone[name] = version
            if len(self._gone) > GONE_REMEMBERED:
                del self._gone[next(iter(self._gone))]
        self.unreadable.pop(Key(*name), None)
        if kind == PLAN.name:
            if self.plans.pop(own_name, None) is None:
                return []
            return self._on_plan(own_name)
        if kind == TENANT.name:
            return self._tenant_gone(own_name)
        if kind == SENDING_DOMAIN.name:
            return self._domain_gone((namespace, own_name))
        if kind == DOMAIN_CLAIM.name:
            claim = self.claims.pop(own_name, None)
            return [] if claim is None else self._claimants(own_name)
        if kind == POD.name:
            pod = self.pods.pop(own_name, None)
            if pod is None:
                return []
            self._pods_of[pod.tenant].discard(own_name)
            return [_tenant_key(pod.tenant)]
        child = self._children.pop(name, None)
        if kind == STATEFUL_SET.name and child is not None:
            self.sets.pop(child.tenant, None)
        return [_tenant_key(child.tenant)] if child is not None and child.tenant else []

    def missing_since(self, kind: Kind, present: Iterable[Name], version: str) -> list[Name]:
        """What a complete listing at `version` no longer had (what came later than the listing is not missing)."""
        there, number = set(present), resource_version(version)
        return [name for name in self.names(kind) if name not in there and self._versions[name] <= number]

    def _not_understood(self, key: Key, obj: Object, why: str) -> list[Wake]:
        """What was understood of it before stays in force; its status will say why this version does not count.

        The CRD lets nothing through that the structs refuse (a test proves it), unless the CRD is another version.
        """
        before = self.unreadable.get(key)
        now = Unreadable(msgspec.convert(obj["metadata"], Metadata), obj.get("status") or {}, why)
        self.unreadable[key] = now
        if before is not None and (before.metadata.generation, before.why) == (now.metadata.generation, why):
            return []
        log.error("an object cannot be understood; is the CRD of another version?", name=str(key), error=why)
        return [Wake(key, urgent=True)] if key.kind != DOMAIN_CLAIM.name else []

    def _plan(self, plan: Plan) -> list[Wake]:
        before = self.plans.get(plan.metadata.name)
        self.plans[plan.metadata.name] = plan
        if _same(before, plan):
            return []
        wakes = [Wake(Key(PLAN.name, "", plan.metadata.name), urgent=True)]
        if before is None or before.spec != plan.spec:
            wakes += self._on_plan(plan.metadata.name)
        return wakes

    def _on_plan(self, plan: str) -> list[Wake]:
        """The tenants on a plan, and their domains: it says how many there may be."""
        return [
            wake
            for tenant in self.tenants_of(plan)
            for wake in (
                _tenant_key(tenant, urgent=True),
                *(_domain_key(key, urgent=True) for key in sorted(self._domains_of.get(tenant, ()))),
            )
        ]

    def _tenant(self, tenant: Tenant) -> list[Wake]:
        name, plan = tenant.metadata.name, tenant.spec.plan_ref.name
        before = self.tenants.get(name)
        self.tenants[name] = tenant
        if before is None or before.spec.namespaces != tenant.spec.namespaces:
            self._rankings.pop(name, None)
        wakes: list[Wake] = []
        if before is None or before.spec.plan_ref.name != plan:
            if before is not None:
                self._tenants_of[before.spec.plan_ref.name].discard(name)
                wakes.append(Wake(Key(PLAN.name, "", before.spec.plan_ref.name)))
            self._tenants_of[plan].add(name)
            wakes.append(Wake(Key(PLAN.name, "", plan)))
        if not _same(before, tenant):
            wakes.append(_tenant_key(name, urgent=True))
            if before is None or before.spec != tenant.spec or before.metadata.uid != tenant.metadata.uid:
                wakes += [_domain_key(key, urgent=True) for key in sorted(self._domains_of.get(name, ()))]
        return wakes

    def _tenant_gone(self, name: str) -> list[Wake]:
        tenant = self.tenants.pop(name, None)
        if tenant is None:
            return []
        self._rankings.pop(name, None)
        plan = tenant.spec.plan_ref.name
        self._tenants_of[plan].discard(name)
        return [
            _tenant_key(name, urgent=True),
            Wake(Key(PLAN.name, "", plan)),
            *(_domain_key(key, urgent=True) for key in sorted(self._domains_of.get(name, ()))),
        ]

    def _domain(self, domain: SendingDomain) -> list[Wake]:
        key, tenant = (domain.metadata.namespace, domain.metadata.name), domain.spec.tenant_ref.name
        before = self.domains.get(key)
        self.domains[key] = domain
        if before is not None:
            self._wanting[before.spec.domain].discard(key)
        self._wanting[domain.spec.domain].add(key)
        if _same(before, domain):
            return []
        wakes = [_domain_key(key, urgent=True)]
        if before is not None and before.spec.tenant_ref.name != tenant:
            self._domains_of[before.spec.tenant_ref.name].discard(key)
            self._rankings.pop(before.spec.tenant_ref.name, None)
            wakes.append(_tenant_key(before.spec.tenant_ref.name))
        self._domains_of[tenant].add(key)
        if before is None or _declared(before) != _declared(domain):
            # The tenant's visit wakes those siblings for which this changes anything: mostly none.
            self._rankings.pop(tenant, None)
            wakes.append(_tenant_key(tenant))
        return wakes

    def _domain_gone(self, key: tuple[str, str]) -> list[Wake]:
        domain = self.domains.pop(key, None)
        if domain is None:
            return []
        tenant = domain.spec.tenant_ref.name
        self._domains_of[tenant].discard(key)
        self._wanting[domain.spec.domain].discard(key)
        self._rankings.pop(tenant, None)
        return [_domain_key(key, urgent=True), _tenant_key(tenant)]

    def _claim(self, claim: DomainClaim) -> list[Wake]:
        before = self.claims.get(claim.metadata.name)
        self.claims[claim.metadata.name] = claim
        if before is not None and before.spec == claim.spec and before.metadata.uid == claim.metadata.uid:
            return []
        return self._claimants(claim.metadata.name)

    def _claimants(self, domain: str) -> list[Wake]:
        return [_domain_key(key) for key in sorted(self._wanting.get(domain, ()))]

    def _pod(self, obj: Object) -> list[Wake]:
        pod = relay_pod(obj)
        before = self.pods.get(pod.name)
        self.pods[pod.name] = pod
        if before is not None:
            self._pods_of[before.tenant].discard(pod.name)
        self._pods_of[pod.tenant].add(pod.name)
        return [] if pod == before or not pod.tenant else [_tenant_key(pod.tenant)]

    def _child(self, kind: Kind, name: Name, obj: Object, version: int) -> list[Wake]:
        tenant = obj["metadata"].get("labels", {}).get(TENANT_LABEL, "")
        before = self._children.get(name)
        child = _Child(exact.digest(obj), tenant or (before.tenant if before else ""), version)
        self._children[name] = child
        changed = before is None or before.digest != child.digest
        if kind is STATEFUL_SET and child.tenant:
            status = obj.get("status", {})
            relays = RelaySet(
                replicas=obj["spec"].get("replicas", 1),
                ready_replicas=status.get("readyReplicas", 0),
                claim_templates=msgspec.json.encode(obj["spec"].get("volumeClaimTemplates", [])),
                owners=tuple(one["uid"] for one in obj["metadata"].get("ownerReferences", ())),
            )
            changed = changed or self.sets.get(child.tenant) != relays
            self.sets[child.tenant] = relays
        return [_tenant_key(child.tenant)] if changed and child.tenant else []


def _understood(kind: Kind, obj: Object) -> _Resource:
    """The object as its struct. Raises msgspec.ValidationError, but not for its status.

    A later version of the operator, from which this one was gone back to, may have written that: it can be rebuilt.
    """
    try:
        return msgspec.convert(obj, _SORTS[kind.name])
    except msgspec.ValidationError:
        if "status" not in obj:
            raise
        return msgspec.convert({**obj, "status": {}}, _SORTS[kind.name])


def relay_pod(obj: Object) -> RelayPod:
    """What matters of a Pod as the API server shows it."""
    metadata, status = obj["metadata"], obj.get("status", {})
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    return RelayPod(
        name=metadata["name"],
        uid=metadata["uid"],
        tenant=metadata.get("labels", {}).get(TENANT_LABEL, ""),
        address=status.get("podIP", ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        terminating="deletionTimestamp" in metadata,
        revision=metadata.get("labels", {}).get("controller-revision-hash", ""),
        annotations=tuple(
            sorted((k, v) for k, v in metadata.get("annotations", {}).items() if k.startswith("malote.dev/"))
        ),
        trouble=_trouble(status, conditions),
    )


def _trouble(status: Object, conditions: dict[str, Any]) -> str:
    for container in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]:
        state = container.get("state", {})
        waiting = state.get("waiting", {})
        before = container.get("lastState", {}).get("terminated")
        if waiting.get("reason", "") not in {"", "ContainerCreating", "PodInitializing"}:
            words = waiting.get("message", "")
            if before is not None:
                words = _last_words(before) or f"{words} ({_end(before)})"
            return f"{waiting['reason']}: {words}".rstrip(": ")
        if "terminated" in state:
            return f"the relay ended: {_end(state['terminated'])}: {_last_words(state['terminated'])}".rstrip(": ")
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', 'Unschedulable')}: {scheduled.get('message', '')}".rstrip(": ")
    return ""


def _end(ended: Object) -> str:
    return f"{ended.get('reason', '')}, exit code {ended.get('exitCode')}"


def _last_words(ended: Object) -> str:
    """What a relay that gave up said last, from the end of its log; its other lines may name recipients."""
    last = str(ended.get("message", "")).rstrip().rpartition("\n")[2]
    return last.removeprefix(_GIVING_UP) if last.startswith(_GIVING_UP) else ""


def _declared(domain: SendingDomain) -> tuple[object, ...]:
    """What of a SendingDomain concerns its tenant; its status does so only by what is decided from it."""
    return domain.spec, domain.metadata.uid, domain.metadata.deletion_timestamp, domain.metadata.creation_timestamp


def _same(before: Plan | Tenant | SendingDomain | None, now: Plan | Tenant | SendingDomain) -> bool:
    """Whether nothing changed that anyone decided: the version always does."""
    if before is None or type(before) is not type(now):
        return False
    # The generation counts: a status that names an older one reads as work in progress (kstatus).
    return (
        msgspec.structs.replace(before.metadata, resource_version="")
        == msgspec.structs.replace(now.metadata, resource_version="")
        and before.spec == now.spec
        and before.status == now.status
    )


def resource_version(version: str) -> int:
    """A resource version as a number, which grows with each change in the cluster; 0 for none."""
    return int(version) if version.isdigit() else 0


def _tenant_key(name: str, *, urgent: bool = False) -> Wake:
    return Wake(Key(TENANT.name, "", name), urgent)


def _domain_key(key: tuple[str, str], *, urgent: bool = False) -> Wake:
    return Wake(Key(SENDING_DOMAIN.name, *key), urgent)
