"""Accounts as their Tenant shows them: which the relay has paused, and what that means for the tenant."""

from __future__ import annotations

from collections.abc import Sequence

from malote_operator.api import names
from malote_operator.api.tenant import Account, AccountStatus, Tenant

from .conditions import no, unknown, yes
from .model import Decided, RelayObservation

CONDITION = "AccountsOpen"
_SHOWN = 5


def status(tenant: Tenant, admitted: Sequence[Account], relay: RelayObservation) -> tuple[AccountStatus, ...]:
    """The accounts within the plan. While no relay answers a pause stays as shown: the relay remembers it too."""
    name, answering = tenant.metadata.name, [pod for pod in relay.pods if pod.config_hash]
    paused = (
        {account: pause for pod in answering for account, pause in pod.paused.items()}
        if answering
        else {one.name: one.paused for one in tenant.status.accounts}
    )
    return tuple(
        AccountStatus(
            name=account.name,
            username=names.username(name, account.name),
            secret_name=names.account_secret(name, account.name),
            paused=paused.get(account.name),
        )
        for account in admitted
    )


def condition(accounts: Sequence[AccountStatus], relay: RelayObservation) -> Decided:
    """Whether no account is paused, as far as is known."""
    if said := words(accounts):
        return no(CONDITION, "Paused", said)
    if not any(pod.config_hash for pod in relay.pods):
        return unknown(CONDITION, "RelayUnavailable", "no relay answers: nobody knows whom it has paused")
    return yes(CONDITION, "Open", "no account is paused for its bounces or complaints")


def words(accounts: Sequence[AccountStatus]) -> str:
    """Who is paused, since when, why, and what ends it; "" for nobody."""
    paused = [one for one in accounts if one.paused is not None]
    more = f"; and {len(paused) - _SHOWN} more" if len(paused) > _SHOWN else ""
    return "; ".join(_words(one) for one in paused[:_SHOWN]) + more


def all_paused(tenant: Tenant, accounts: Sequence[AccountStatus]) -> bool:
    """Whether every account that is not suspended is paused, so that none can send."""
    suspended = {one.name for one in tenant.spec.accounts if one.suspended}
    others = [one for one in accounts if one.name not in suspended]
    return bool(others) and all(one.paused is not None for one in others)


def _words(one: AccountStatus) -> str:
    pause = one.paused
    assert pause is not None  # noqa: S101  # asked for by who calls
    ends = (
        f"until {pause.until:%Y-%m-%d %H:%M} UTC"
        if pause.until is not None
        else f"until the platform team resumes it (malote-relayctl resume {one.name})"
    )
    return f"account {one.name} is paused since {pause.since:%Y-%m-%d %H:%M} UTC, {ends}: {pause.reason}"
