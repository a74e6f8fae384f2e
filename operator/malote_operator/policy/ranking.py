"""Which of a tenant's SendingDomains come first: made once per tenant, then asked for each of them.

A tenant may apply as many SendingDomains as its namespace takes, so that whatever is done for each must not go
through all of them again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from malote_operator.api.sendingdomain import SendingDomain
from malote_operator.api.tenant import Tenant

SURPLUS_NAMED = 20
"""So many domains beyond the plan's number are still named in the relay's configuration, with the reason for which
they are refused. To any further ones the relay says only that they are not the tenant's sending domains: the
configuration must not grow with what a tenant applies."""
EXAMPLES = 5
"""So many of the domains that came first are named to those that came too late."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The SendingDomains that compete for the plan's number, oldest first.

    `order`: their domains, each once. `first`: by domain, the SendingDomain that speaks for it. `members`: the
    domain of every one that competes, by uid.
    """

    order: tuple[str, ...] = ()
    first: Mapping[str, SendingDomain] = field(default_factory=dict)
    members: Mapping[str, str] = field(default_factory=dict)
    _places: Mapping[str, int] = field(default_factory=dict)

    def place(self, domain: str) -> int:
        """How many other domains come before this one; one that does not compete comes last."""
        return self._places.get(domain, len(self.order))

    def examples(self, limit: int) -> tuple[str, ...]:
        """Some of the domains that a plan for `limit` has room for."""
        return self.order[: min(limit, EXAMPLES)]


def rank(tenant: Tenant, siblings: Iterable[SendingDomain]) -> Ranking:
    """The ranking of those that are in a namespace of the tenant, name it, and are not being deleted."""
    namespaces = frozenset(tenant.spec.namespaces)
    able = [
        one
        for one in siblings
        if one.metadata.namespace in namespaces
        and one.metadata.deletion_timestamp is None
        and one.spec.tenant_ref.name == tenant.metadata.name
    ]
    able.sort(key=lambda one: (one.metadata.creation_timestamp or _EPOCH, one.metadata.uid))
    first: dict[str, SendingDomain] = {}
    for one in able:
        first.setdefault(one.spec.domain, one)
    return Ranking(
        order=tuple(first),
        first=first,
        members={one.metadata.uid: one.spec.domain for one in able},
        _places={domain: place for place, domain in enumerate(first)},
    )


def moved(before: Ranking, after: Ranking, limit: int) -> frozenset[str]:
    """The uids of those that have to be judged again when one ranking follows another under a plan for `limit`."""
    return frozenset(
        uid
        for uid in before.members.keys() | after.members.keys()
        if _standing(before, uid, limit) != _standing(after, uid, limit)
    )


def _standing(ranking: Ranking, uid: str, limit: int) -> object:
    domain = ranking.members.get(uid)
    if domain is None:
        return None
    if (speaker := ranking.first[domain].metadata).uid != uid:
        return speaker.namespace, speaker.name
    place = ranking.place(domain)
    if place < limit:
        return True
    return place < limit + SURPLUS_NAMED, ranking.examples(limit)
