"""The relay's configuration file: the one thing the two programs share (schema: `malote_relay.config`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from malote_operator import fleet
from malote_operator.api import names
from malote_operator.api.plan import Plan
from malote_operator.api.tenant import Tenant
from malote_operator.policy.model import DkimPublicKey, DomainDecision, TenantDecision
from malote_operator.settings import Settings
from malote_relay import config as relay
from malote_relay import passwords as verifiers

from . import egress
from .secrets import NOTICES, RETURN_PATHS_FILE

BOUNCE_PORT: Final = 2525


def render(
    tenant: Tenant,
    plan: Plan,
    decision: TenantDecision,
    passwords: Mapping[str, str],
    settings: Settings,
    *,
    return_paths: bool = False,
    notices_key: DkimPublicKey | None = None,
) -> bytes:
    """The text of relay.json. `passwords` by account name; an account without one is left out for now.

    `return_paths`: `keys/` holds the secret that they are made with. `notices_key`: it holds this one, which signs
    the relay's own messages.
    Equal arguments give equal bytes, so that the hash changes only with the meaning.
    """
    name = tenant.metadata.name
    accounts = tuple(
        relay.Account(
            name=account.name,
            username=names.username(name, account.name),
            verifier=account_verifier(names.username(name, account.name), passwords[account.name]),
            account_class=relay.AccountClass(account.account_class.value),
            suspended=account.suspended,
        )
        for account in decision.accounts
        if account.name in passwords
    )
    delivery = egress.delivery(tenant, plan, settings)
    secrets = (RETURN_PATHS_FILE,) if return_paths else ()
    keys = (_key(notices_key, NOTICES),) if notices_key is not None else ()
    return _text(tenant, _plan(plan), accounts, decision, settings, delivery, secrets, keys)


def render_without_plan(
    tenant: Tenant, decision: TenantDecision, previous: bytes, settings: Settings
) -> bytes | None:
    """The text of relay.json for a tenant whose plan is not there, from the `previous` text.

    Its queue goes on by the plan that it had, and leaves as it did; everything else is as decided now, so that a
    missing plan keeps no submission open and no suspension from freezing. None: there is no previous text that can
    be read, and so no plan to go by.
    """
    try:
        before = relay.decode(previous)
    except relay.ConfigError:
        return None
    named = {account.name: account for account in tenant.spec.accounts}
    accounts = tuple(
        replace(account, suspended=named[account.name].suspended)
        for account in before.accounts
        if account.name in named
    )
    secrets, keys = before.bounces.secrets, before.notices.keys
    return _text(tenant, before.plan, accounts, decision, settings, before.delivery, secrets, keys)


def _text(
    tenant: Tenant,
    plan: relay.Plan,
    accounts: tuple[relay.Account, ...],
    decision: TenantDecision,
    settings: Settings,
    delivery: relay.Delivery,
    secrets: tuple[str, ...],
    notices_keys: tuple[relay.DkimKey, ...],
) -> bytes:
    name = tenant.metadata.name
    base = fleet.base(settings.relay.config)
    config = replace(
        base,
        tenant=name,
        hostname=names.endpoint_host(name, settings),
        plan=plan,
        submission=replace(base.submission, open=decision.submission_open, reason=decision.submission_reason),
        accounts=accounts,
        domains=_domains(decision.domains, return_paths=bool(secrets)),
        sender_verification=replace(
            base.sender_verification,
            mode=relay.SenderMode(tenant.spec.sender_verification.mode.value),
            unknown=relay.UnknownSender(tenant.spec.sender_verification.unknown.value),
            senders=tenant.spec.sender_verification.senders,
        ),
        notices=replace(base.notices, language=relay.Language(tenant.spec.contact.language.value), keys=notices_keys),
        bounces=replace(base.bounces, secrets=secrets),
        listen=replace(base.listen, bounce_port=BOUNCE_PORT if secrets else None),
        delivery=replace(delivery, frozen=decision.delivery_frozen),
        resolver=replace(base.resolver, nameservers=settings.relay.nameservers, port=settings.relay.dns_port),
        rehearsal=relay.Rehearsal(clock_offset_seconds=settings.rehearsal.clock_offset_seconds),
    )
    return relay.encode(config)


def account_verifier(username: str, password: str) -> str:
    """The verifier of a generated password, always with the same salt, so that rendering again changes nothing.

    The salt need not be secret but must differ between accounts; deriving it from both makes it so.
    """
    salt = hashlib.sha256(b"malote account salt\0" + username.encode() + b"\0" + password.encode()).digest()[:16]
    return verifiers.verifier(password, salt=salt)


def _plan(plan: Plan) -> relay.Plan:
    return relay.Plan(
        name=plan.metadata.name,
        display_name=plan.spec.display_name,
        messages_per_hour=plan.spec.messages_per_hour,
        tolerance_percent=plan.spec.tolerance_percent,
        over_limit_reply=relay.OverLimitReply(plan.spec.over_limit_reply.value),
        max_message_bytes=plan.spec.max_message_bytes,
        max_recipients=plan.spec.max_recipients,
        report_retention_days=plan.spec.report_retention_days,
    )


def _domains(decided: tuple[DomainDecision, ...], *, return_paths: bool) -> tuple[relay.Domain, ...]:
    """Each domain once, in a stable order; keys only where they sign."""
    by_name: dict[str, DomainDecision] = {}
    for one in decided:
        if one.domain not in by_name or one.sending:
            by_name[one.domain] = one
    found = (_domain(one) for one in sorted(by_name.values(), key=lambda one: one.domain))
    if not return_paths:
        return tuple(found)
    # Also with one that may not send now: what it has queued leaves as before.
    return tuple(replace(one, return_path=by_name[one.name].return_path) for one in found)


def _domain(one: DomainDecision) -> relay.Domain:
    if one.sending and not one.keys:
        # The relay refuses a whole configuration in which a domain may send unsigned; one lost key must not keep
        # the others, or a suspension, from reaching it.
        return relay.Domain(name=one.domain, refusal=f"the DKIM key of {one.domain} cannot be read")
    return relay.Domain(
        name=one.domain,
        sending=one.sending,
        refusal=one.refusal,
        keys=tuple(_key(key, one.domain) for key in (one.keys if one.sending else ())),
    )


def _key(key: DkimPublicKey, domain: str) -> relay.DkimKey:
    return relay.DkimKey(selector=key.selector, file=key.file_name(domain))
