"""What decisions are made from, and what they say: the contract between deciding and doing.

`…World` is what the operator has seen, gathered by whoever calls; `…Decision` is what should be so now.
`…Memory` is the little that cannot be seen again in the world and is therefore kept in ConfigMap T-state.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from malote_operator.api.domainclaim import DomainClaim
from malote_operator.api.egress import EgressStatus
from malote_operator.api.meta import ConditionStatus
from malote_operator.api.plan import Plan
from malote_operator.api.sendingdomain import Record
from malote_operator.api.tenant import Account, AccountPaused, AccountStatus, Endpoint, Tenant
from malote_operator.dns.model import Observation

from .ranking import Ranking


@dataclass(frozen=True, slots=True)
class Decided:
    """A condition before it has a time: `reason` is CamelCase for programs, `message` a sentence for people."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that doing could not do (NameConflict, an apply the API server refused …).

    `permanent`: no retry helps until somebody changes something (Stalled); else it is being tried again.
    """

    reason: str
    message: str
    permanent: bool = True


@dataclass(frozen=True, slots=True)
class DkimPublicKey:
    """A domain's DKIM key as far as it is public: `public_key` is the base64 of the SubjectPublicKeyInfo's DER."""

    selector: str
    public_key: str
    created: dt.datetime

    def file_name(self, domain: str) -> str:
        """The private key's name in the relay's `keys/` and in Secret T-relay-keys."""
        return f"{self.selector}.{domain}.pem"


@dataclass(frozen=True, slots=True)
class ReturnPathMemory:
    """Since when a domain names this return path, and of its two records the same as of the domain's three."""

    host: str
    named_at: dt.datetime
    verified_at: dt.datetime | None = None
    grace_started: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class DomainMemory:
    """When all three records were first seen, and since when they have not been (None: they are, or never were).

    `selectors`: of the keys made for the domain, oldest first, for whoever looks their Secrets up by name.
    """

    verified_at: dt.datetime | None = None
    grace_started: dt.datetime | None = None
    selectors: tuple[str, ...] = ()
    return_path: ReturnPathMemory | None = None


@dataclass(frozen=True, slots=True)
class DomainWorld:
    """What a SendingDomain is judged by.

    `ranking`: `ranking.rank` of every SendingDomain that names the same tenant, in any namespace, this one among
    them; empty without a tenant.
    `claim`: the DomainClaim named by this domain, whoever holds it.
    `keys`: this SendingDomain's keys, oldest first; the newest is the one to publish.
    `observation`: the last look-up of this process; None: none yet (the previous status then still counts).
    """

    tenant: Tenant | None = None
    plan: Plan | None = None
    ranking: Ranking = field(default_factory=Ranking)
    claim: DomainClaim | None = None
    keys: tuple[DkimPublicKey, ...] = ()
    observation: Observation | None = None
    memory: DomainMemory = DomainMemory()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class DomainDecision:
    """What holds for a SendingDomain, and what should be done about it.

    `wants_key`: no key yet: make one (then decide again). `wants_claim`: no DomainClaim yet and DKIM was seen:
    POST one (then decide again with whatever claim there is). `releases_claim`: the claim in the world is this
    tenant's and void (its SendingDomain is gone, or lost its DKIM record for good): delete it, then decide again.
    `in_config`: belongs into its tenant's relay configuration, sending or refused with `refusal`.
    `sending`: verified or within the grace period. `keys`: what to sign with.
    `return_path`: the host that mail's bounces come back to; "": mail leaves with the sender's own reverse-path.
    `next_check`: look DNS up then (now or earlier: at once); None: only when something else changes.
    """

    namespace: str
    name: str
    uid: str
    domain: str
    conditions: tuple[Decided, ...]
    records: tuple[Record, ...] = ()
    accepted: bool = False
    wants_key: bool = False
    wants_claim: bool = False
    releases_claim: bool = False
    verified: bool = False
    sending: bool = False
    in_config: bool = False
    refusal: str = ""
    keys: tuple[DkimPublicKey, ...] = ()
    return_path: str = ""
    memory: DomainMemory = DomainMemory()
    next_check: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class PodObservation:
    """A relay pod. What follows `ready` is from its /readyz ("" and False while it does not answer).

    `paused`: by account, which it has paused by itself.
    """

    name: str
    ready: bool = False
    config_hash: str = ""
    submission_open: bool = False
    config_error: str = ""
    paused: Mapping[str, AccountPaused] = field(default_factory=dict)

    @property
    def answers(self) -> bool:
        """Whether the operator was told anything by it."""
        return bool(self.config_hash or self.config_error)


@dataclass(frozen=True, slots=True)
class RelayObservation:
    """What is there of a tenant's relay. `message`: why pods do not start, where the API server knows."""

    exists: bool = False
    replicas: int = 1
    ready_replicas: int = 0
    pods: tuple[PodObservation, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class EgressWorld:
    """How the relay appears to the world. `key`: of its own messages (None: it cannot be had now).

    `smart_host`: one takes all mail, so that the world sees its name. `source_address`: that mail leaves from; "" if
    none is configured. `observation`: of the records at `helo_name`.
    """

    helo_name: str
    key: DkimPublicKey | None = None
    smart_host: bool = False
    source_address: str = ""
    observation: Observation | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """The welcome mail. `configured`: the platform has told the operator how to send mail."""

    configured: bool = False
    failure: str = ""


@dataclass(frozen=True, slots=True)
class TenantMemory:
    """What ConfigMap T-state keeps: when the welcome mail went out, and each domain's memory by uid."""

    welcome_sent_at: dt.datetime | None = None
    domains: Mapping[str, DomainMemory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TenantWorld:
    """What a Tenant is judged by.

    `domains`: the decisions for every SendingDomain that names it. `wanted_hash`: of the configuration written
    ("" while none is). `config_written_at`: when that configuration was written (None: nobody knows, long ago).
    `credentials`: the (namespace, account name) pairs whose Secret is there and right.
    `absent_namespaces`: those of spec.namespaces that do not exist (writing a Secret there was answered by 404).
    `egress`: None while there is no relay or no plan.
    """

    plan: Plan | None = None
    domains: tuple[DomainDecision, ...] = ()
    relay: RelayObservation = RelayObservation()
    wanted_hash: str = ""
    config_written_at: dt.datetime | None = None
    credentials: frozenset[tuple[str, str]] = frozenset()
    absent_namespaces: frozenset[str] = frozenset()
    memory: TenantMemory = TenantMemory()
    welcome: Welcome = Welcome()
    egress: EgressWorld | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class TenantDecision:
    """What holds for a Tenant, and what should be done about it.

    Everything but `conditions`, `account_status`, `egress`, `welcome_due` and `next_look` depends on the specs and
    domains alone, so that a first decision made before the relay was looked at already says what to render.
    `relay_wanted` False: render nothing, and leave alone what may be there (only deletion of the Tenant removes).
    `config_only`: but there is a relay whose plan is gone: write its configuration (Secret T-relay) and nothing
    else, so that it closes, and freezes if it must.
    `accounts`: those within the plan. `domains`: those that go into the configuration.
    `credential_namespaces`: where copies of the accounts' Secrets belong (besides the relay namespace).
    `next_look`: decide again then at the latest, because time itself changes something; None: no such time.
    """

    conditions: tuple[Decided, ...]
    relay_wanted: bool = False
    config_only: bool = False
    submission_open: bool = False
    submission_reason: str = ""
    delivery_frozen: bool = False
    accounts: tuple[Account, ...] = ()
    domains: tuple[DomainDecision, ...] = ()
    credential_namespaces: tuple[str, ...] = ()
    endpoint: Endpoint | None = None
    account_status: tuple[AccountStatus, ...] = ()
    egress: EgressStatus | None = None
    welcome_due: bool = False
    next_look: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class PlanWorld:
    """How many Tenants name the plan."""

    tenants: int = 0


@dataclass(frozen=True, slots=True)
class PlanDecision:
    """What holds for a Plan."""

    conditions: tuple[Decided, ...]
    tenants: int = 0
