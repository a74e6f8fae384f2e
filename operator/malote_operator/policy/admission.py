"""Whether a SendingDomain is admitted: a chain of small checks, the first that objects gives reason and message."""

from __future__ import annotations

from dataclasses import dataclass

from malote_operator.api.sendingdomain import DkimPublish, SendingDomain
from malote_operator.settings import Settings

from .model import DomainWorld
from .ranking import SURPLUS_NAMED, Ranking


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a domain is not admitted. `to_sender`: the same for the SMTP client (ASCII, names no other tenant).

    `final`: somebody has to change a manifest. (What is missing may also just come later: then this ends by itself.
    Saying that all is as declared would let a misspelt name pass for a success.)
    `in_config`: the tenant's relay says so too, instead of calling the domain unknown.
    """

    reason: str
    message: str
    to_sender: str
    final: bool = True
    in_config: bool = True


def check(domain: SendingDomain, world: DomainWorld, settings: Settings) -> Refusal | None:
    """The first objection, or None: admitted."""
    if domain.metadata.deletion_timestamp is not None:
        return _going(domain)
    tenant, plan = world.tenant, world.plan
    wanted = domain.spec.tenant_ref.name
    if tenant is None or tenant.metadata.deletion_timestamp is not None:
        gone = "is being deleted" if tenant is not None else "does not exist"
        return Refusal(
            "TenantNotFound",
            f"Tenant {wanted} {gone}: apply it, or name an existing one in spec.tenantRef of a new SendingDomain",
            "its tenant does not exist",
            in_config=False,
        )
    namespace = domain.metadata.namespace
    if namespace not in tenant.spec.namespaces:
        return Refusal(
            "NamespaceNotAllowed",
            f"Tenant {wanted} does not list namespace {namespace}: the platform team adds it to spec.namespaces of"
            " the Tenant, or this SendingDomain moves to a namespace listed there",
            "it is declared outside its tenant's namespaces",
            in_config=False,
        )
    ranking = world.ranking
    place = ranking.place(domain.spec.domain)
    if plan is None:
        return Refusal(
            "PlanNotFound",
            f"Plan {tenant.spec.plan_ref.name} of Tenant {wanted} does not exist: the platform team applies it, or"
            " names an existing one in spec.planRef of the Tenant",
            "its tenant has no plan",
            in_config=place < SURPLUS_NAMED,
        )
    first = ranking.first.get(domain.spec.domain, domain)
    if first.metadata.uid != domain.metadata.uid:
        return Refusal(
            "DuplicateDomain",
            f"SendingDomain {first.metadata.name} in namespace {first.metadata.namespace} declares"
            f" {domain.spec.domain} already: delete one of the two",
            "it is declared twice",
            in_config=False,  # the first one speaks for the domain
        )
    limit = plan.spec.max_domains
    if place >= limit:
        return _too_many(limit, ranking, place)
    return _taken(domain, world) or _publish(domain, settings)


def void_claim(uid: str, world: DomainWorld) -> bool:
    """Whether the claim is the same tenant's, but not of a SendingDomain that is still in the running."""
    claim, tenant = world.claim, world.tenant
    if claim is None or tenant is None or claim.spec.tenant != tenant.metadata.name:
        return False
    return claim.spec.uid != uid and claim.spec.uid not in world.ranking.members


def own_claim(domain: SendingDomain, world: DomainWorld) -> bool:
    """Whether this SendingDomain, which is not admitted, holds the domain and has no right to keep it.

    One that was verified keeps it: what is wrong (a plan deleted by mistake …) may be put right again. One that
    is being deleted cannot come back, however long somebody's finalizer keeps it.
    """
    if world.claim is None or world.claim.spec.uid != domain.metadata.uid:
        return False
    return domain.metadata.deletion_timestamp is not None or world.memory.verified_at is None


def _going(domain: SendingDomain) -> Refusal:
    """Deletion counts from its request, or a finalizer of the tenant's own would keep a domain beyond its plan."""
    left = f" It is still here because of metadata.finalizers: {_some(domain.metadata.finalizers)}."
    return Refusal(
        "Deleting",
        f"this SendingDomain is being deleted: nothing is sent from {domain.spec.domain} any more, and others may"
        f" claim it.{left if domain.metadata.finalizers else ''}",
        "it is being deleted",
        final=False,
        in_config=False,
    )


def _too_many(limit: int, ranking: Ranking, place: int) -> Refusal:
    return Refusal(
        "TooManyDomains",
        f"the plan allows {limit} sending domain{'s' if limit != 1 else ''} and {', '.join(ranking.examples(limit))}"
        " came first: delete one of them, or ask the platform team for a larger plan",
        "its tenant's plan allows no further domain",
        in_config=place < limit + SURPLUS_NAMED,
    )


def _some(words: tuple[str, ...]) -> str:
    return ", ".join(words[:5])


def _taken(domain: SendingDomain, world: DomainWorld) -> Refusal | None:
    claim = world.claim
    if claim is None or claim.spec.uid == domain.metadata.uid or claim.spec.tenant == domain.spec.tenant_ref.name:
        return None
    return Refusal(
        "DomainTaken",
        f"{domain.spec.domain} belongs to another tenant of this platform: it becomes free when that tenant deletes"
        " its SendingDomain; ask the platform team if the domain is yours",
        "it belongs to another tenant",
    )


def _publish(domain: SendingDomain, settings: Settings) -> Refusal | None:
    if domain.spec.dkim.publish is not DkimPublish.CNAME or settings.dns.dkim_zone:
        return None
    return Refusal(
        "CNAMENotOffered",
        "this platform has no DNS zone for DKIM CNAMEs (setting dns.dkimZone): write spec.dkim.publish: TXT",
        "its DKIM record cannot be published as a CNAME here",
    )
