"""Tenants: from the decision to objects in the cluster, to pods that have loaded them, to the status that says so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import msgspec
import structlog

from malote_operator.api.plan import Plan
from malote_operator.api.tenant import Tenant
from malote_operator.kube.errors import NameConflict
from malote_operator.kube.kinds import SENDING_DOMAIN, TENANT
from malote_operator.mail.postman import Postman, Undeliverable
from malote_operator.policy import tenant as policy
from malote_operator.policy.model import (
    DomainDecision,
    EgressWorld,
    Problem,
    RelayObservation,
    TenantDecision,
    TenantWorld,
    Welcome,
)
from malote_operator.policy.ranking import Ranking, moved
from malote_operator.render import egress

from .cache import Wake
from .certificates import earliest
from .context import Context, tell, write_status
from .dkimkeys import DkimKeys
from .egress import EgressChecks
from .memory import Kept, Memories
from .pauses import tell_of_pauses
from .provision import Made, Provision
from .queue import Key
from .sendingdomain import SendingDomains

log = structlog.get_logger(__name__)

PROBLEM_PAUSE = 30.0
"""Seconds until something that a person has to put right is looked at again."""
ABSENT_NAMESPACE_PAUSE = 10.0
"""Seconds until a namespace that did not exist is tried again (namespaces are not watched)."""
STARTING_PAUSE = 30.0
"""Seconds until a relay that is not ready is looked at again, should the watch have told nothing."""
ERROR_PAUSE = 30.0
"""Seconds until a relay with something amiss in its configuration is looked at again: a password or a certificate
that has been put right changes no hash, and nothing tells of it."""
PAUSED_PAUSE = 60.0
"""Seconds until a relay that has paused an account is looked at again: somebody may resume it at the relay."""
WELCOME_PAUSE = 60.0
LONG_LOOP = 50
"""After so many SendingDomains in a row others get their turn: the Lease above all."""
RESEND_ANNOTATION = "malote.dev/resend-welcome"


@dataclass(frozen=True, slots=True)
class _Unsent:
    """A welcome mail that could not be sent: why, and when (of the queue's clock) to try again."""

    why: str
    again: float


class Tenants:
    """Reconciles Tenants."""

    def __init__(
        self,
        context: Context,
        *,
        domains: SendingDomains,
        keys: DkimKeys,
        memories: Memories,
        provision: Provision,
        postman: Postman | None,
    ) -> None:
        self._context = context
        self._domains = domains
        self._keys = keys
        self._memories = memories
        self._provision = provision
        self._postman = postman
        self._uids: dict[str, str] = {}
        self._unsent: dict[str, _Unsent] = {}
        self._rankings: dict[str, Ranking] = {}
        self._egress = EgressChecks(context)

    def clear(self) -> None:
        """Start anew (another replica may have worked since)."""
        self._provision.clear()
        self._rankings.clear()
        self._egress.clear()

    async def reconcile(self, key: Key) -> float | None:
        """Look at one Tenant."""
        context = self._context
        tenant = context.cache.tenants.get(key.name)
        before = self._uids.get(key.name)
        if before is not None and (tenant is None or tenant.metadata.uid != before):
            # Its children go by their owner references; what is remembered of it goes here.
            self._memories.forget(before)
            self._keys.forget(before)
            self._unsent.pop(before, None)
            self._provision.forget(before)
            self._egress.forget(before)
            self._rankings.pop(before, None)
            del self._uids[key.name]
        if tenant is None or tenant.metadata.deletion_timestamp is not None:
            return None
        self._uids[key.name] = tenant.metadata.uid
        not_understood = context.cache.in_the_dark(key.name) or context.cache.hides_domains(tenant)
        if not_understood and tenant.spec.suspend is None:
            # Plan or SendingDomain says why. Taken for absent, it would close the relay, or the domain in it.
            log.warning("its plan or a domain cannot be understood: the relay goes on as it is", tenant=key.name)
            return PROBLEM_PAUSE
        world = await self._see(tenant)
        decision = policy.decide(tenant, world, context.settings, context.now())
        made = Made()
        if decision.relay_wanted or decision.config_only:
            if world.plan is not None:
                await self._provision.provide(tenant, world.plan, decision, made)
            else:
                await self._provision.close(tenant, decision, made)
            world = await self._see_again(tenant, world, made)
            decision = policy.decide(tenant, world, context.settings, context.now())
        await self._publish(tenant, decision)
        wait = self._pause(key.name, decision, world, made)
        if decision.relay_wanted and (again := await self._welcome(tenant, world, decision, made)):
            wait = min(again, wait) if wait is not None else again
        await self._forget_gone_domains(tenant, world)
        return wait

    # -- seeing

    async def _see(self, tenant: Tenant) -> TenantWorld:
        context = self._context
        problems: list[Problem] = []
        kept = Kept()
        try:
            kept = await self._memories.get(tenant)
        except NameConflict as conflict:
            problems.append(Problem("NameConflict", str(conflict)))
        plan = context.cache.plans.get(tenant.spec.plan_ref.name)
        self._wake_moved(tenant, plan)
        domains: list[DomainDecision] = []
        for number, one in enumerate(context.cache.domains_of(tenant.metadata.name), start=1):
            domains.append(await self._domains.decide(one))
            if number % LONG_LOOP == 0:
                await asyncio.sleep(0)
        return TenantWorld(
            plan=plan,
            domains=tuple(domains),
            relay=RelayObservation(exists=context.cache.set_of(tenant) is not None),
            memory=kept.memory,
            welcome=Welcome(
                configured=self._postman is not None,
                failure=unsent.why if (unsent := self._unsent.get(tenant.metadata.uid)) else "",
            ),
            problems=tuple(problems),
        )

    def _wake_moved(self, tenant: Tenant, plan: Plan | None) -> None:
        """Have those SendingDomains looked at for which others that came or went make a difference."""
        context, uid = self._context, tenant.metadata.uid
        before, ranking = self._rankings.get(uid), context.cache.ranking(tenant)
        self._rankings[uid] = ranking
        if before is None or before is ranking or plan is None:
            return  # at the start, and with another plan, every domain is looked at anyway
        others = moved(before, ranking, plan.spec.max_domains)
        context.wake(
            Wake(Key(SENDING_DOMAIN.name, one.metadata.namespace, one.metadata.name))
            for one in (context.cache.domains_of(tenant.metadata.name) if others else ())
            if one.metadata.uid in others
        )

    async def _see_again(self, tenant: Tenant, world: TenantWorld, made: Made) -> TenantWorld:
        """The world after applying: what of it the relay has taken in."""
        context, name = self._context, tenant.metadata.name
        pods = context.cache.pods_of(name)
        told = bool(made.config_hash) and await context.pods.announce(
            pods, made.config_hash, made.secrets, again=False
        )
        relay = await context.pods.observe(context.cache.set_of(tenant), pods)
        behind = [pod.name for pod in relay.pods if pod.ready and pod.config_hash != made.config_hash]
        if made.config_hash and behind and not told:
            late = [pod for pod in pods if pod.name in behind]
            await context.pods.announce(late, made.config_hash, made.secrets, again=True)
        elif not behind:
            context.pods.settled(pods)
        return replace(
            world,
            relay=relay,
            wanted_hash=made.config_hash,
            config_written_at=self._provision.written_at(tenant),
            credentials=made.handed.done,
            absent_namespaces=made.handed.absent_namespaces,
            egress=self._egress_of(tenant, world, made),
            problems=tuple(dict.fromkeys((*world.problems, *made.problems, *made.handed.problems))),
        )

    def _egress_of(self, tenant: Tenant, world: TenantWorld, made: Made) -> EgressWorld | None:
        """How the relay appears to the world, and what the DNS says of that."""
        if world.plan is None:
            return None
        leaves, key = egress.delivery(tenant, world.plan, self._context.settings), made.notices_key
        smart_host = leaves.smart_host is not None
        return EgressWorld(
            helo_name=leaves.helo_name,
            key=key,
            smart_host=smart_host,
            source_address=leaves.source_address if leaves.socks5 is None else "",
            observation=self._egress.of(tenant, leaves.helo_name, key.selector, smart_host=smart_host)
            if key is not None
            else None,
        )

    async def _forget_gone_domains(self, tenant: Tenant, world: TenantWorld) -> None:
        """Delete the keys of SendingDomains that are gone or going, then what was remembered of them."""
        try:
            await self._forget_all_but(tenant, world, self._context.cache.present_domain_uids(tenant.metadata.name))
        except NameConflict as conflict:
            log.warning("what is gone is not forgotten yet", tenant=tenant.metadata.name, error=str(conflict))

    async def _forget_all_but(self, tenant: Tenant, world: TenantWorld, present: frozenset[str]) -> None:
        kept = await self._memories.get(tenant)
        gone = {uid: one for uid, one in kept.memory.domains.items() if uid not in present}
        if not gone:
            return
        used = {selector for uid, one in kept.memory.domains.items() if uid in present for selector in one.selectors}
        used |= {key.selector for one in world.domains if one.uid in present for key in one.keys}
        await self._keys.release(
            tenant, [selector for one in gone.values() for selector in one.selectors if selector not in used]
        )
        await self._memories.change(
            tenant,
            lambda now: replace(
                now,
                memory=replace(
                    now.memory, domains={uid: one for uid, one in now.memory.domains.items() if uid not in gone}
                ),
            ),
        )

    # -- telling

    async def _publish(self, tenant: Tenant, decision: TenantDecision) -> None:
        context = self._context
        status = policy.status(tenant, decision, context.now())
        if await write_status(context, TENANT, tenant.metadata, tenant.status, status):
            await tell(context, TENANT, tenant.metadata, tenant.status.conditions, status.conditions)
            await tell_of_pauses(context, tenant, status)

    async def _publish_again(self, tenant: Tenant, world: TenantWorld) -> None:
        """The status once more, after something that happened since it was written."""
        present = self._context.cache.tenants.get(tenant.metadata.name, tenant)
        await self._publish(present, policy.decide(present, world, self._context.settings, self._context.now()))

    async def _welcome(
        self, tenant: Tenant, world: TenantWorld, decision: TenantDecision, made: Made
    ) -> float | None:
        """Send the welcome mail when it is due or asked for; seconds until the next attempt, if one is needed.

        At least once: the mail is sent, then remembered. An operator that dies in between sends it again, which is
        a nuisance; the other order could leave a paying tenant without credentials. Both mails carry the same
        Message-ID, so that mailboxes may show them as one.
        """
        if self._postman is None or world.plan is None or made.forgetful:
            return None  # one that could not be remembered would be sent with every visit
        kept = await self._memories.get(tenant)
        request = tenant.metadata.annotations.get(RESEND_ANNOTATION, "")
        asked = request not in {"", kept.made.welcome_request} and decision.submission_open
        if not decision.welcome_due and not asked:
            self._unsent.pop(tenant.metadata.uid, None)
            return None
        unsent = self._unsent.get(tenant.metadata.uid)
        if unsent is not None and (wait := unsent.again - self._context.queue.now()) > 0:
            return wait
        try:
            await self._postman.welcome(tenant, world.plan, decision, made.passwords, request=request)
        except Undeliverable as failure:
            log.warning("the welcome mail could not be sent", tenant=tenant.metadata.name, error=str(failure))
            self._unsent[tenant.metadata.uid] = _Unsent(str(failure), self._context.queue.now() + WELCOME_PAUSE)
            await self._publish_again(tenant, replace(world, welcome=Welcome(configured=True, failure=str(failure))))
            return WELCOME_PAUSE
        now = self._context.now().replace(microsecond=0)
        kept = await self._memories.change(
            tenant,
            lambda kept: replace(
                kept,
                memory=replace(kept.memory, welcome_sent_at=now),
                made=msgspec.structs.replace(kept.made, welcome_request=request),
            ),
        )
        self._unsent.pop(tenant.metadata.uid, None)
        await self._publish_again(tenant, replace(world, memory=kept.memory))
        return None

    def _pause(self, name: str, decision: TenantDecision, world: TenantWorld, made: Made) -> float | None:
        """Seconds until the next look at the latest."""
        context = self._context
        waits = [context.seconds_until(earliest((decision.next_look, made.look_again)))]
        if world.problems:
            waits.append(PROBLEM_PAUSE)
        if world.absent_namespaces:
            waits.append(ABSENT_NAMESPACE_PAUSE)
        pods = [pod for pod in world.relay.pods if pod.ready]
        if any(pod.config_hash != world.wanted_hash for pod in pods) and world.wanted_hash:
            waits.append(context.pods.retry_delay(context.cache.pods_of(name)))
        elif decision.relay_wanted and not pods:
            waits.append(STARTING_PAUSE)
        if any(pod.config_error for pod in pods):
            waits.append(ERROR_PAUSE)
        if any(pod.paused for pod in pods):
            waits.append(PAUSED_PAUSE)
        return min((wait for wait in waits if wait is not None), default=None)
