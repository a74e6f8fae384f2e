"""Accounts' passwords: one master Secret each in the relay namespace, copies in the tenant's namespaces.

A password is made once, when its master does not exist, by POST: of two replicas that try, one wins. The copies
are rendered from the master and put back when they drift.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec
import structlog

from malote_operator.api import names
from malote_operator.api.tenant import Account, Tenant
from malote_operator.kube.apply import Applier
from malote_operator.kube.client import Api, Object
from malote_operator.kube.errors import AlreadyExists, Forbidden, Invalid, NameConflict, NotFound
from malote_operator.kube.kinds import SECRET
from malote_operator.policy import refusals
from malote_operator.policy.model import Problem
from malote_operator.render import secrets
from malote_operator.settings import Settings

from . import material
from .memory import Kept, Memories

log = structlog.get_logger(__name__)

COPIES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Handed:
    """What became of the copies: the (namespace, account) pairs that are there and right, and what hindered."""

    done: frozenset[tuple[str, str]] = frozenset()
    absent_namespaces: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()


class Credentials:
    """Makes, copies and withdraws credentials."""

    def __init__(self, api: Api, applier: Applier, memories: Memories, settings: Settings) -> None:
        self._api = api
        self._applier = applier
        self._memories = memories
        self._settings = settings

    async def password(self, tenant: Tenant, account: Account, ca: bytes) -> str:
        """The account's password, made if there is none yet. Raises NameConflict."""
        return await self._password(tenant, account.name, ca)

    async def hand_out(self, tenant: Tenant, copies: Sequence[Object], masters: Iterable[str]) -> Handed:
        """Make the rendered copies in the tenant's namespaces, and withdraw what is no longer wanted.

        `masters`: the accounts that have a password now. It is withdrawn with its account, also where no namespace
        has a copy, or an account that is declared again would have its old one.
        """
        wanted = {_place(copy): copy for copy in copies}
        known = {*wanted, *((self._settings.relay_namespace, account) for account in masters)}
        kept = await self._memories.change(tenant, lambda kept: _made(kept, {*kept.made.credentials, *known}))
        done: set[tuple[str, str]] = set()
        absent: set[str] = set()
        problems: list[Problem] = []

        async def one(place: tuple[str, str], copy: Object) -> None:
            try:
                await self._applier.ensure(copy, tenant.metadata.uid)
            except NotFound:
                absent.add(place[0])
            except NameConflict as conflict:
                problems.append(Problem("NameConflict", str(conflict)))
            except (Invalid, Forbidden) as refusal:
                problems.append(refusals.credentials(place[0], refusal.words))
            else:
                done.add(place)

        # A few at a time: a tenant with many namespaces and accounts must not keep the requests of others waiting.
        # Each to its end, failed or not: what went on behind a failure would still write when another replica leads.
        places = list(wanted)
        failures: list[BaseException | None] = []
        for start in range(0, len(places), COPIES_AT_ONCE):
            some = (one(place, wanted[place]) for place in places[start : start + COPIES_AT_ONCE])
            failures += await asyncio.gather(*some, return_exceptions=True)
        if (failure := next((one for one in failures if one is not None), None)) is not None:
            raise failure
        problems += await self._withdraw(tenant, kept, set(kept.made.credentials) - known)
        return Handed(frozenset(done), frozenset(absent), tuple(problems))

    async def _withdraw(self, tenant: Tenant, kept: Kept, surplus: set[tuple[str, str]]) -> list[Problem]:
        """Delete copies outside of what the Tenant lists, and masters of accounts that it no longer names.

        A copy that the operator may not delete stays remembered, so that it goes as soon as that is allowed.
        """
        problems: list[Problem] = []
        named = {account.name for account in tenant.spec.accounts}
        places = {*tenant.spec.namespaces, self._settings.relay_namespace}
        gone: set[tuple[str, str]] = set()
        for namespace, account in sorted(surplus):
            # An account that is left out because the plan shrank keeps its password: the plan may grow again.
            if namespace in places and account in named:
                continue
            name = names.account_secret(tenant.metadata.name, account)
            try:
                await self._applier.delete(SECRET, name, namespace, tenant.metadata.uid)
            except Forbidden as refusal:
                problems.append(_not_withdrawn(namespace, name, refusal))
            else:
                gone.add((namespace, account))
        for account in {account for _, account in gone} - named:
            if (self._settings.relay_namespace, account) in gone:
                continue
            name = names.account_secret(tenant.metadata.name, account)
            await self._applier.delete(SECRET, name, self._settings.relay_namespace, tenant.metadata.uid)
        if gone:
            await self._memories.change(tenant, lambda kept: _made(kept, set(kept.made.credentials) - gone))
        return problems

    async def _password(self, tenant: Tenant, account: str, ca: bytes) -> str:
        name, namespace = names.account_secret(tenant.metadata.name, account), self._settings.relay_namespace
        live = await self._applier.find(SECRET, name, namespace, tenant.metadata.uid)
        if live is None:
            password = material.new_password()
            body = secrets.account(tenant, account, password, self._settings, namespace, ca)
            try:
                live = await self._api.create(SECRET, body)
            except AlreadyExists:
                live = await self._applier.find(SECRET, name, namespace, tenant.metadata.uid)
            else:
                log.info("made an account's password", tenant=tenant.metadata.name, account=account)
        try:
            found = secrets.password_of(live or {})
        except (KeyError, ValueError):
            found = ""
        if len(found) < material.PASSWORD_BYTES:
            # Somebody emptied or shortened it. An account without a strong password must not exist.
            log.warning("an account's Secret holds no usable password: made a new one", secret=name)
            found = material.new_password()
        return found


def _not_withdrawn(namespace: str, name: str, refusal: Forbidden) -> Problem:
    log.error("credentials could not be withdrawn", namespace=namespace, secret=name, error=str(refusal))
    return Problem(
        "CredentialsNotWithdrawn",
        f"Secret {name} in namespace {namespace} is no longer wanted there, and the operator may not delete it: the"
        " platform team deletes it, and gives the operator its rights there back (the chart's value"
        " rbac.credentialNamespaces) so that it sees that",
        permanent=False,
    )


def _place(copy: Object) -> tuple[str, str]:
    return copy["metadata"]["namespace"], copy["metadata"]["labels"]["malote.dev/account"]


def _made(kept: Kept, places: set[tuple[str, str]]) -> Kept:
    return replace(kept, made=msgspec.structs.replace(kept.made, credentials=tuple(sorted(places))))
