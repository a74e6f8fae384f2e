"""SendingDomains: key, records, look-ups, claim; the tenant is woken when what it is judged by has changed."""

from __future__ import annotations

import dataclasses

import structlog

from malote_operator.api.domainclaim import DomainClaim
from malote_operator.api.sendingdomain import SendingDomain
from malote_operator.dns.model import Question
from malote_operator.kube.errors import AlreadyExists, ApiError, Forbidden, Invalid, NameConflict, NotFound
from malote_operator.kube.kinds import DOMAIN_CLAIM, SENDING_DOMAIN, TENANT
from malote_operator.policy import domain as policy
from malote_operator.policy import returnpath
from malote_operator.policy.model import DkimPublicKey, DomainDecision, DomainMemory, DomainWorld, Problem
from malote_operator.policy.ranking import Ranking
from malote_operator.render import claim as claims

from .cache import Wake
from .context import Context, refused, relay_namespace_missing, tell, write_status
from .dkimkeys import DkimKeys
from .memory import Memories
from .queue import Key
from .returnpathevents import tell_of_return_path

log = structlog.get_logger(__name__)

STEPS = 5
"""Key, claim and release are done one after the other, with a decision after each; more rounds mean a fault."""
PROBLEM_PAUSE = 30.0


class SendingDomains:
    """Reconciles SendingDomains, and decides about them for whoever reconciles their tenant."""

    def __init__(self, context: Context, keys: DkimKeys, memories: Memories) -> None:
        self._context = context
        self._keys = keys
        self._memories = memories
        self._told: dict[str, DomainDecision] = {}

    def clear(self) -> None:
        """Forget what tenants were told (another replica may have told them otherwise)."""
        self._told.clear()

    async def reconcile(self, key: Key) -> float | None:
        """Look at one SendingDomain."""
        context = self._context
        domain = context.cache.domains.get((key.namespace, key.name))
        if domain is None or domain.metadata.deletion_timestamp is not None:
            await self._release_claims(key)
        if domain is None:
            return None
        if domain.metadata.deletion_timestamp is None and context.cache.in_the_dark(domain.spec.tenant_ref.name):
            return PROBLEM_PAUSE  # nobody knows what its tenant may do: all stays as it is, its claim above all
        # One that is being deleted may stay for long (a finalizer): its status says that nothing is sent from it.
        problems: tuple[Problem, ...] = ()
        try:
            decision = await self._settle(domain)
        except NameConflict as conflict:
            problems = (Problem("NameConflict", str(conflict)),)
        except NotFound as missing:
            problems = (relay_namespace_missing(context.settings, missing),)
        except (Invalid, Forbidden) as refusal:
            problems = (refused(context.settings, refusal),)
        if problems:
            decision = await self._decide(domain, problems)
        await self._publish(domain, decision)
        if problems:
            return PROBLEM_PAUSE
        return self._check(domain, decision)

    async def decide(self, domain: SendingDomain) -> DomainDecision:
        """What holds for the domain as far as is known; does nothing about it."""
        try:
            return await self._decide(domain, ())
        except NameConflict as conflict:
            return await self._decide(domain, (Problem("NameConflict", str(conflict)),))

    async def sweep(self) -> None:
        """Release claims whose SendingDomain is gone (it went while nobody watched); forget what was seen of any."""
        cache = self._context.cache
        present = {domain.metadata.uid for domain in cache.domains.values()} | cache.unreadable_uids()
        for claim in list(self._context.cache.claims.values()):
            if claim.spec.uid in present:
                continue
            try:
                await self._release(claim)
            except ApiError as error:
                # Everything waits for the sweep, and the next one tries again.
                log.error("a claim could not be released", domain=claim.spec.domain, error=str(error))
        for uid in set(self._told) - present:
            del self._told[uid]
        self._context.checks.keep(present | {tenant.metadata.uid for tenant in cache.tenants.values()})

    async def _settle(self, domain: SendingDomain) -> DomainDecision:
        """Decide, do what the decision wants, decide again, until there is nothing left to do."""
        for _ in range(STEPS):
            decision = await self._decide(domain, ())
            if not await self._act(domain, decision):
                return decision
        raise RuntimeError(f"{domain.spec.domain}: deciding and doing do not come to an end")

    async def _act(self, domain: SendingDomain, decision: DomainDecision) -> bool:
        """Do one thing that the decision wants; False if there is none."""
        context = self._context
        tenant = context.cache.tenants.get(domain.spec.tenant_ref.name)
        claim = context.cache.claims.get(domain.spec.domain)
        if decision.releases_claim and claim is not None:
            await self._release(claim)
            return True
        if tenant is None:
            return False
        if decision.wants_key:

            async def remember(selector: str) -> None:
                memory = dataclasses.replace(await self._memory(domain), selectors=(selector,))
                await self._memories.change(tenant, lambda kept: kept.with_domain(decision.uid, memory))

            await self._keys.make(tenant, domain, remember)
            return True
        if decision.wants_claim:
            try:
                made = await context.api.create(DOMAIN_CLAIM, claims.domain_claim(tenant, domain))
            except AlreadyExists:
                # Another tenant was quicker, or the watch lags behind: what is there decides.
                found = await context.api.find(DOMAIN_CLAIM, domain.spec.domain)
                if found is None:
                    return True  # its holder has let it go meanwhile
                made = found
            else:
                log.info("claimed a domain", domain=domain.spec.domain, tenant=tenant.metadata.name)
            self._wake_others(domain, context.cache.update(DOMAIN_CLAIM, made))
            return True
        if decision.memory != await self._memory(domain):
            await self._memories.change(tenant, lambda kept: kept.with_domain(decision.uid, decision.memory))
        return False

    async def _decide(self, domain: SendingDomain, problems: tuple[Problem, ...]) -> DomainDecision:
        context = self._context
        tenant = context.cache.tenants.get(domain.spec.tenant_ref.name)
        memory = DomainMemory()
        keys: tuple[DkimPublicKey, ...] = ()
        if tenant is not None and domain.metadata.namespace in tenant.spec.namespaces and not problems:
            memory = await self._memory(domain)
            keys = await self._keys.of(tenant, domain, memory.selectors)
        world = DomainWorld(
            tenant=tenant,
            plan=context.cache.plans.get(tenant.spec.plan_ref.name) if tenant is not None else None,
            ranking=context.cache.ranking(tenant) if tenant is not None else Ranking(),
            claim=context.cache.claims.get(domain.spec.domain),
            keys=keys,
            observation=context.checks.observation(domain.metadata.uid, keys[-1].selector) if keys else None,
            memory=memory,
            problems=problems,
        )
        return policy.decide(domain, world, context.settings, context.now())

    async def _memory(self, domain: SendingDomain) -> DomainMemory:
        tenant = self._context.cache.tenants.get(domain.spec.tenant_ref.name)
        if tenant is None:
            return DomainMemory()
        kept = await self._memories.get(tenant)
        return kept.memory.domains.get(domain.metadata.uid, DomainMemory())

    async def _publish(self, domain: SendingDomain, decision: DomainDecision) -> None:
        """Write the status, tell people, and wake the tenant if it should know."""
        context = self._context
        status = policy.status(domain, decision, context.now())
        if await write_status(context, SENDING_DOMAIN, domain.metadata, domain.status, status):
            await tell(context, SENDING_DOMAIN, domain.metadata, domain.status.conditions, status.conditions)
            await tell_of_return_path(context, domain, status)
        before = self._told.get(decision.uid)
        if before is None or _for_tenant(before) != _for_tenant(decision):
            self._told[decision.uid] = decision
            context.wake([Wake(Key(TENANT.name, "", domain.spec.tenant_ref.name))])

    def _check(self, domain: SendingDomain, decision: DomainDecision) -> float | None:
        """Start a look-up that is due, or say when it will be."""
        context = self._context
        if decision.next_check is None or not decision.keys or context.checks.running(decision.uid):
            return None
        wait = context.seconds_until(decision.next_check) or 0.0
        if wait > 0.0:
            return wait
        key = Key(SENDING_DOMAIN.name, decision.namespace, decision.name)

        def ended() -> None:
            context.wake([Wake(key)])

        host = returnpath.looked_for(domain, context.settings)
        question = Question(decision.domain, decision.keys[-1].selector, return_path=host)
        context.checks.start(decision.uid, question, ended)
        return None

    async def _release_claims(self, key: Key) -> None:
        """The SendingDomain is gone or going: its domain becomes free for others."""
        for claim in list(self._context.cache.claims.values()):
            if (claim.spec.namespace, claim.spec.name) != (key.namespace, key.name):
                continue
            present = self._context.cache.domains.get((key.namespace, key.name))
            if present is None or present.metadata.deletion_timestamp is not None:
                await self._release(claim)

    async def _release(self, claim: DomainClaim) -> None:
        context = self._context
        await context.api.delete(DOMAIN_CLAIM, claim.metadata.name, uid=claim.metadata.uid)
        log.info("released a domain", domain=claim.spec.domain, tenant=claim.spec.tenant)
        context.checks.forget(claim.spec.uid)
        self._told.pop(claim.spec.uid, None)
        context.wake(context.cache.remove((DOMAIN_CLAIM.name, "", claim.metadata.name)))

    def _wake_others(self, domain: SendingDomain, wakes: list[Wake]) -> None:
        own = Key(SENDING_DOMAIN.name, domain.metadata.namespace, domain.metadata.name)
        self._context.wake(wake for wake in wakes if wake.key != own)


def _for_tenant(decision: DomainDecision) -> tuple[object, ...]:
    """What a tenant's own decision and its relay's configuration are made of."""
    ready = next((one for one in decision.conditions if one.type == "Ready"), None)
    return (
        decision.verified,
        decision.sending,
        decision.in_config,
        decision.refusal,
        decision.keys,
        decision.return_path,
        ready.message if ready else "",
    )
