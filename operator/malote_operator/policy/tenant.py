"""Tenant: from approval to sending, and what keeps it from there.

A tenant's way: approved by the platform team → relay provisioned with submission closed → paid (or a free plan) →
a domain verified → submission opens → welcome mail. `Ready` means: its accounts can send now.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, replace

from malote_operator.api import names
from malote_operator.api.meta import ConditionStatus
from malote_operator.api.plan import Plan
from malote_operator.api.tenant import AccountStatus, Endpoint, SuspendReason, Tenant, TenantStatus
from malote_operator.settings import Settings

from . import accounts, egress
from .conditions import merge, no, unknown, yes
from .model import Decided, DomainDecision, PodObservation, Problem, TenantDecision, TenantWorld

RELOAD_GRACE = dt.timedelta(seconds=10)
"""A relay goes on accepting while it takes in a changed configuration. For so long that is no news: Ready stays."""

ALL_PAUSED = "AccountsPaused"
"""The reason for not being Ready when the relay has paused every account: a person must look at the mail."""

_SUSPENDED = {
    SuspendReason.ABUSE: ("abuse was reported; nothing leaves until that is settled", True),
    SuspendReason.PAYMENT: ("payment is overdue; what is queued still leaves", False),
    SuspendReason.REQUEST: ("the tenant asked for it; what is queued still leaves", False),
}
"""By reason: what to say, and whether the queue freezes."""


@dataclass(frozen=True, slots=True)
class _Closed:
    """Why submission is closed: the reason for programs, for kubectl's readers, and for SMTP clients (ASCII)."""

    reason: str
    message: str
    to_sender: str


def decide(tenant: Tenant, world: TenantWorld, settings: Settings, now: dt.datetime) -> TenantDecision:
    """What holds for this tenant now."""
    spec, plan = tenant.spec, world.plan
    approved, paid = _approved(tenant), _paid(tenant, plan, now)
    verified = _domains_verified(world.domains)
    closed = _closed(tenant, plan, approved, paid, verified, now)
    # A relay that is there stays, approved or not, and even without a plan: its queue still has to leave.
    relay_wanted = plan is not None and (approved.status is ConditionStatus.TRUE or world.relay.exists)
    admitted = spec.accounts[: plan.spec.max_accounts] if plan is not None else ()
    decision = TenantDecision(
        conditions=(),
        relay_wanted=relay_wanted,
        config_only=plan is None and world.relay.exists,
        submission_open=closed is None,
        submission_reason=closed.to_sender if closed else "",
        delivery_frozen=spec.suspend is not None and _SUSPENDED[spec.suspend.reason][1],
        accounts=admitted,
        domains=tuple(domain for domain in world.domains if domain.in_config),
        credential_namespaces=tuple(sorted(set(spec.namespaces))) if relay_wanted else (),
        endpoint=Endpoint(
            host=names.endpoint_host(tenant.metadata.name, settings),
            submission_port=settings.endpoint.submission_port,
            submissions_port=settings.endpoint.submissions_port,
        )
        if relay_wanted
        else tenant.status.endpoint,
        account_status=accounts.status(tenant, admitted, world.relay) if relay_wanted else tenant.status.accounts,
        egress=egress.status(world.egress, tenant.status.egress),
        next_look=_next_look(tenant, world, now),
    )
    starting = _starting(tenant, world, settings)
    relay = _relay_available(world, relay_wanted, approved, starting)
    open_ = _submission_open(closed, world, starting, now)
    handed = _credentials_missing(decision, world)
    sent = _credentials_sent(world)
    ready = _ready(tenant, world, (closed, relay, open_, handed), decision.account_status)
    conditions = (
        ready,
        approved,
        paid,
        verified,
        relay,
        open_,
        accounts.condition(decision.account_status, world.relay),
        sent,
        egress.condition(decision.egress),
        *_progress(tenant, world, closed, relay_wanted or decision.config_only, ready),
    )
    opened = closed is None and open_.status is ConditionStatus.TRUE and _loaded(world) and handed is None
    welcome_due = opened and world.welcome.configured and world.memory.welcome_sent_at is None
    return replace(decision, conditions=conditions, welcome_due=welcome_due)


def status(tenant: Tenant, decision: TenantDecision, now: dt.datetime) -> TenantStatus:
    """The whole status to write."""
    generation = tenant.metadata.generation
    return TenantStatus(
        observed_generation=generation,
        conditions=merge(tenant.status.conditions, decision.conditions, generation, now),
        endpoint=decision.endpoint,
        accounts=decision.account_status,
        egress=decision.egress,
    )


def _approved(tenant: Tenant) -> Decided:
    if tenant.spec.approval.approved:
        return yes("Approved", "Approved")
    return no(
        "Approved",
        "ApprovalPending",
        "the platform team has not approved the tenant's data: set spec.approval.approved to true",
    )


def _paid(tenant: Tenant, plan: Plan | None, now: dt.datetime) -> Decided:
    until = tenant.spec.billing.paid_until
    if plan is None:
        return no("Paid", "PlanNotFound", f"Plan {tenant.spec.plan_ref.name} does not exist")
    if plan.spec.price is None or not (plan.spec.price.monthly or plan.spec.price.annual):
        return yes("Paid", "FreePlan", "the plan costs nothing")
    if until is None:
        return no("Paid", "PaymentPending", "no payment is recorded: billing writes spec.billing.paidUntil")
    if until < now.date():
        return no("Paid", "PaymentPending", f"paid until {until}: billing writes a later spec.billing.paidUntil")
    return yes("Paid", "Paid", f"paid until {until}")


def _domains_verified(domains: Iterable[DomainDecision]) -> Decided:
    domains = sorted(domains, key=lambda one: (not one.accepted, one.domain))
    verified = [one.domain for one in domains if one.verified]
    if verified:
        return yes("DomainsVerified", "Verified", _listed(verified))
    in_grace = [one.domain for one in domains if one.sending]
    if in_grace:
        return yes(
            "DomainsVerified", "GracePeriod", f"{_listed(in_grace)}: a record is missing, mail goes on for now"
        )
    if not domains:
        return no("DomainsVerified", "NoDomain", "no SendingDomain names this tenant: apply one in its namespace")
    return no("DomainsVerified", "RecordsPending", "; ".join(_why(one) for one in domains[:3]))


def _closed(
    tenant: Tenant, plan: Plan | None, approved: Decided, paid: Decided, verified: Decided, now: dt.datetime
) -> _Closed | None:
    """The first thing that keeps submission closed."""
    spec = tenant.spec
    if spec.suspend is not None:
        why, _ = _SUSPENDED[spec.suspend.reason]
        return _Closed("Suspended", f"suspended ({spec.suspend.reason.value}): {why}", f"sending is suspended: {why}")
    if plan is None:
        return _Closed("PlanNotFound", _no_plan(tenant), "the tenant has no plan")
    if spec.cancel_after is not None and spec.cancel_after < now.date():
        return _Closed(
            "Cancelled",
            f"cancelled: the last day was {spec.cancel_after}; what is queued still leaves",
            f"the contract ended on {spec.cancel_after}",
        )
    if approved.status is not ConditionStatus.TRUE:
        return _Closed(approved.reason, approved.message, "the tenant is not approved yet")
    if paid.status is not ConditionStatus.TRUE:
        return _Closed(paid.reason, paid.message, "payment is not confirmed")
    if not spec.accounts:
        return _Closed("NoAccount", "the tenant has no SMTP account: add one to spec.accounts", "there is no account")
    if verified.status is not ConditionStatus.TRUE:
        return _Closed(verified.reason, verified.message, "no domain of the tenant is verified yet")
    return None


def _no_plan(tenant: Tenant) -> str:
    return (
        f"Plan {tenant.spec.plan_ref.name} does not exist: the platform team applies it, or names an existing one in"
        " spec.planRef"
    )


def _starting(tenant: Tenant, world: TenantWorld, settings: Settings) -> str:
    """Why no relay is ready, or where that can be seen: what keeps a volume away, say, only the pod's events tell."""
    relay = world.relay
    if relay.message:
        return relay.message
    if not relay.exists:
        return "the relay is being made"
    what, where = "the relay has no pod yet", f"statefulset {names.relay(tenant.metadata.name)}"
    if relay.pods:
        what, where = "the relay's pod is not ready yet", f"pod {relay.pods[0].name}"
    return f"{what}; should that last: kubectl describe {where} -n {settings.relay_namespace}"


def _relay_available(world: TenantWorld, wanted: bool, approved: Decided, starting: str) -> Decided:
    relay = world.relay
    if relay.ready_replicas > 0:
        return yes("RelayAvailable", "Available", f"{relay.ready_replicas} of {relay.replicas} ready")
    if relay.exists:
        return no("RelayAvailable", "Starting", starting)
    if wanted:
        return no("RelayAvailable", "Provisioning", starting)
    return no("RelayAvailable", "NotProvisioned", approved.message or "the relay cannot be made without a plan")


def _submission_open(closed: _Closed | None, world: TenantWorld, starting: str, now: dt.datetime) -> Decided:
    """What the relay does, which is not always what it should do already."""
    pods = [pod for pod in world.relay.pods if pod.ready]
    silent = next((f"{pod.name} does not answer the operator at port 9090" for pod in pods if not pod.answers), "")
    if closed is not None:
        if any(pod.submission_open for pod in pods):
            errors = [f": it says of its configuration: {pod.config_error}" for pod in pods if pod.config_error]
            message = f"the relay has not closed submission yet{''.join(errors[:1])} ({closed.message})"
            return yes("SubmissionOpen", "Closing", message)
        if silent:
            message = f"{silent}, so that nobody knows whether it still takes mail ({closed.message})"
            return unknown("SubmissionOpen", "RelayUnavailable", message)
        return no("SubmissionOpen", closed.reason, closed.message)
    if not pods:
        return no("SubmissionOpen", "RelayUnavailable", starting)
    failing = next((pod for pod in pods if pod.config_error), None)
    if failing is not None:
        return no("SubmissionOpen", "ConfigError", f"{failing.name}: {failing.config_error}")
    if silent:
        why = f"{silent}, so that nobody knows what it has loaded"
        return no("SubmissionOpen", "RelayUnavailable", f"{why}; should that last: does a NetworkPolicy forbid it?")
    accepting = all(pod.submission_open for pod in pods)
    if not accepting or not (_loaded(world) or _reloading(world, now)):
        return no("SubmissionOpen", "Loading", "the relay is loading its configuration")
    return yes("SubmissionOpen", "Open")


def _credentials_missing(decision: TenantDecision, world: TenantWorld) -> Decided | None:
    """The Ready condition that says where credentials are still missing, or None."""
    missing = sorted(
        {
            namespace
            for namespace in decision.credential_namespaces
            for account in decision.accounts
            if namespace not in world.absent_namespaces and (namespace, account.name) not in world.credentials
        }
    )
    if not missing:
        return None
    return no("Ready", "CredentialsPending", f"the credentials are being copied to {_listed(missing)}")


def _credentials_sent(world: TenantWorld) -> Decided:
    sent = world.memory.welcome_sent_at
    if sent is not None:
        return yes("CredentialsSent", "Sent", f"the welcome mail went out at {sent:%Y-%m-%d %H:%M} UTC")
    if not world.welcome.configured:
        return no(
            "CredentialsSent",
            "MailNotConfigured",
            "the operator has no way to send mail; the credentials are in the Secrets named in status.accounts",
        )
    if world.welcome.failure:
        return no("CredentialsSent", "SendFailed", world.welcome.failure)
    return no("CredentialsSent", "Waiting", "the welcome mail is sent when submission opens")


def _ready(
    tenant: Tenant,
    world: TenantWorld,
    states: tuple[_Closed | None, Decided, Decided, Decided | None],
    shown: tuple[AccountStatus, ...],
) -> Decided:
    closed, relay, open_, handed = states
    if world.problems:
        return no("Ready", world.problems[0].reason, world.problems[0].message)
    if (surplus := _surplus(tenant, world.plan)) is not None:
        return no("Ready", surplus.reason, surplus.message)
    if closed is not None:
        return no("Ready", closed.reason, closed.message)
    for blocking in (relay, open_, handed):
        if blocking is not None and blocking.status is not ConditionStatus.TRUE:
            return no("Ready", blocking.reason, blocking.message)
    if accounts.all_paused(tenant, shown):
        return no("Ready", ALL_PAUSED, accounts.words(shown))
    paused = _listed(one.name for one in shown if one.paused is not None)
    but = f", but not {paused}: paused (condition {accounts.CONDITION} says why)" if paused else ""
    absent = sorted(set(tenant.spec.namespaces) & world.absent_namespaces)
    note = f"; credentials follow when namespace {_listed(absent)} exists" if absent else ""
    return yes("Ready", "Sending", f"accounts can send{but}{note}")


def _surplus(tenant: Tenant, plan: Plan | None) -> Problem | None:
    if plan is None or len(tenant.spec.accounts) <= plan.spec.max_accounts:
        return None
    limit = plan.spec.max_accounts
    left_out = [account.name for account in tenant.spec.accounts[limit:]]
    return Problem(
        "TooManyAccounts",
        f"Plan {plan.metadata.name} allows {limit} account{'s' if limit != 1 else ''}; left out: {_listed(left_out)}."
        " Remove them from spec.accounts, or name a larger plan in spec.planRef",
    )


def _progress(
    tenant: Tenant, world: TenantWorld, closed: _Closed | None, relay_there: bool, ready: Decided
) -> tuple[Decided, Decided]:
    """Reconciling and Stalled as kstatus reads them; waiting for a person, a payment or DNS is neither.

    A plan that is not there is a stall, since nobody but who wrote its name can tell whether it will ever come:
    `kubectl wait` and GitOps tools would otherwise take a misspelt name for a success.
    """
    permanent = next((problem for problem in world.problems if problem.permanent), None)
    if permanent is not None:
        return no("Reconciling", permanent.reason), yes("Stalled", permanent.reason, permanent.message)
    if world.plan is None:
        return no("Reconciling", "PlanNotFound"), yes("Stalled", "PlanNotFound", _no_plan(tenant))
    if ready.reason == "TooManyAccounts":
        return no("Reconciling", ready.reason), yes("Stalled", ready.reason, ready.message)
    if world.problems:
        return yes("Reconciling", ready.reason, ready.message), no("Stalled", "Progressing")
    behind = relay_there and (world.relay.ready_replicas < world.relay.replicas or not _loaded(world))
    settled = ready.status is ConditionStatus.TRUE or ready.reason == ALL_PAUSED
    if behind or (closed is None and not settled):
        reason = "Loading" if settled else ready.reason
        return yes("Reconciling", reason, "the relay is brought up to date"), no("Stalled", "Progressing")
    return no("Reconciling", "Settled"), no("Stalled", "Settled")


def _next_look(tenant: Tenant, world: TenantWorld, now: dt.datetime) -> dt.datetime | None:
    """The next midnight (UTC) at which paid time or the contract ends, or the end of a reload's or a pause's time."""
    days = (tenant.spec.billing.paid_until, tenant.spec.cancel_after)
    looks = [
        dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC)
        for day in days
        if day is not None and day < dt.date.max  # the calendar's last day never ends
    ]
    if world.config_written_at is not None and not _loaded(world):
        looks.append(world.config_written_at + RELOAD_GRACE)
    looks += [pause.until for pod in world.relay.pods for pause in pod.paused.values() if pause.until is not None]
    return min((look for look in looks if look > now), default=None)


def _loaded(world: TenantWorld) -> bool:
    """Whether every pod that is ready has taken in the configuration as it is now."""
    return all(_current(pod, world) for pod in world.relay.pods if pod.ready)


def _reloading(world: TenantWorld, now: dt.datetime) -> bool:
    """Whether it is too early to wonder why a pod has not loaded the configuration."""
    written = world.config_written_at
    return written is not None and now < written + RELOAD_GRACE


def _current(pod: PodObservation, world: TenantWorld) -> bool:
    return bool(world.wanted_hash) and pod.config_hash == world.wanted_hash and not pod.config_error


def _why(domain: DomainDecision) -> str:
    """Why a domain is not verified, from its own Ready condition."""
    ready = next((one for one in domain.conditions if one.type == "Ready"), None)
    return f"{domain.domain}: {ready.message if ready is not None and ready.message else 'not verified'}"


def _listed(words: Iterable[str]) -> str:
    words = list(words)
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
