"""The records of a SendingDomain: what to paste, and what was seen of each.

A look-up that failed changes no state: what was seen before still counts, and the message says so.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TypeVar

import msgspec

from malote_operator.api import names
from malote_operator.api.egress import EgressRecord
from malote_operator.api.sendingdomain import DkimPublish, Purpose, Record, RecordState, SendingDomain
from malote_operator.dns import compare, expected
from malote_operator.dns.model import Answer, Outcome
from malote_operator.settings import Settings

from .model import DkimPublicKey, DomainWorld

CHECKED_AT_RESOLUTION = dt.timedelta(seconds=60)
"""`checkedAt` of a record that stays as it was moves in such steps, so that looking alone writes little."""

_R = TypeVar("_R", Record, EgressRecord)
_OBSERVED_KEPT = 10
_MESSAGE_KEPT = 900
_ONE_VALUE = frozenset({Purpose.DKIM, Purpose.RETURN_PATH_MX})
_SPF = frozenset({Purpose.SPF, Purpose.RETURN_PATH_SPF})


def records_of(domain: SendingDomain, world: DomainWorld, settings: Settings) -> tuple[Record, ...]:
    """The SPF, DKIM and DMARC records with their values and states; the world must hold a key."""
    name, dns, key = domain.spec.domain, settings.dns, world.keys[-1]
    look = world.observation
    at = look.at if look else None
    spf_answer = look.spf if look else None
    dmarc_answer = look.dmarc if look else None
    dkim_answer = look.dkim if look else None
    before = {record.purpose: record for record in domain.status.records}
    dkim_wanted = _dkim_wanted(domain, key, settings)
    spf_wanted = expected.spf_record(name, dns.spf_include, _texts(spf_answer, before.get(Purpose.SPF)))
    dmarc_wanted = expected.dmarc_record(name, dns.dmarc_policy, _texts(dmarc_answer, before.get(Purpose.DMARC)))

    def dkim_verdict(answer: Answer) -> compare.Verdict:
        if dkim_wanted.type == "CNAME":
            return compare.dkim_cname(answer.cname, answer.texts, dkim_wanted.value, key.public_key)
        return compare.dkim(answer.texts, key.public_key)

    return (
        _record(Purpose.SPF, spf_wanted, spf_answer, before, at, lambda one: compare.spf(one.texts, dns.spf_include)),
        _record(Purpose.DKIM, dkim_wanted, dkim_answer, before, at, dkim_verdict),
        _record(
            Purpose.DMARC,
            dmarc_wanted,
            dmarc_answer,
            before,
            at,
            lambda one: compare.dmarc(one.texts, dns.dmarc_policy),
        ),
    )


def return_path_records_of(domain: SendingDomain, world: DomainWorld, settings: Settings) -> tuple[Record, ...]:
    """The MX and SPF records of the return path with their values and states; none before they were looked for."""
    host, include, look = domain.spec.return_path, settings.dns.spf_include, world.observation
    at = look.at if look else None
    endpoint = names.endpoint_host(domain.spec.tenant_ref.name, settings)
    mx_answer = look.return_path_mx if look else None
    spf_answer = look.return_path_spf if look else None
    before = {record.purpose: record for record in domain.status.records if record.name == host}
    if Purpose.RETURN_PATH_SPF not in before and (spf_answer is None or spf_answer.name != host):
        return ()
    mx_wanted = expected.return_path_mx(host, endpoint)
    spf_wanted = expected.spf_record(host, include, _texts(spf_answer, before.get(Purpose.RETURN_PATH_SPF)))
    return (
        _record(
            Purpose.RETURN_PATH_MX, mx_wanted, mx_answer, before, at, lambda one: compare.mx(one.texts, endpoint)
        ),
        _record(
            Purpose.RETURN_PATH_SPF, spf_wanted, spf_answer, before, at, lambda one: compare.spf(one.texts, include)
        ),
    )


def words(record: Record) -> str:
    """What is wrong with a record, or that nothing is known yet."""
    return record.message or ("not looked up yet" if record.state is RecordState.UNKNOWN else record.state.value)


def wrong(records: tuple[Record, ...]) -> str:
    """What is wrong with those that were not found, each with its name; "" when all were."""
    return "; ".join(
        f"{record.purpose.value}: {words(record)}" for record in records if record.state is not RecordState.FOUND
    )


def seen(
    fresh: _R,
    previous: _R | None,
    answer: Answer | None,
    judge: Callable[[Answer], compare.Verdict],
    observed: tuple[str, ...],
    at: dt.datetime | None,
    resolution: dt.timedelta,
) -> _R:
    """A record with what the look at `at` showed of it; `fresh` is one of which nothing is known.

    `previous`: what was known of the same record before. It stays where nobody looked; where the look-up failed,
    with a message that this is no news; and where only the time of looking moved, by less than `resolution`.
    """
    known = previous if previous is not None else fresh
    if at is None or answer is None or answer.name != fresh.name:
        return known
    if answer.outcome is Outcome.FAILED:
        message = f"could not be looked up, which changes nothing: {answer.error}"[:_MESSAGE_KEPT]
        return msgspec.structs.replace(known, message=message)
    verdict, at = judge(answer), at.replace(microsecond=0)
    record = msgspec.structs.replace(
        fresh, state=verdict.state, observed=observed, message=verdict.message, checked_at=at
    )
    if previous is None or previous.checked_at is None:
        return record
    alike = msgspec.structs.replace(previous, checked_at=at) == record
    return previous if alike and at - previous.checked_at < resolution else record


def shown(texts: tuple[str, ...], *, spf: bool) -> tuple[str, ...]:
    """What to show of an answer: beside an SPF record stand many TXT records that are none of our business."""
    if spf:
        texts = tuple(text for text in texts if text.lower().lstrip(" \"'").startswith("v=spf"))
    return tuple(sorted(texts))[:_OBSERVED_KEPT]


def _record(
    purpose: Purpose,
    wanted: expected.Wanted,
    answer: Answer | None,
    before: dict[Purpose, Record],
    at: dt.datetime | None,
    judge: Callable[[Answer], compare.Verdict],
) -> Record:
    previous = before.get(purpose)
    if previous is not None and (previous.name != wanted.name or previous.type != wanted.type):
        previous = None
    if previous is not None and purpose in _ONE_VALUE and previous.value != wanted.value:
        previous = None  # what was seen was another key, or another endpoint
    fresh = Record(purpose=purpose, type=wanted.type, name=wanted.name, value=wanted.value)
    texts: tuple[str, ...] = ()
    if answer is not None:
        texts = (*answer.cname[:1], *answer.texts) if wanted.type == "CNAME" else answer.texts
    observed = shown(texts, spf=purpose in _SPF)
    record = seen(fresh, previous, answer, judge, observed, at, CHECKED_AT_RESOLUTION)
    if previous is None and record.state is RecordState.UNKNOWN and record.message and purpose in _SPF:
        merge = "; if the domain has an SPF record already, add the include: to that one instead"
        record = msgspec.structs.replace(record, message=record.message + merge)
    return record


def _texts(answer: Answer | None, previous: Record | None) -> tuple[str, ...]:
    """What stands in DNS as far as is known: a failed look-up leaves what was seen before."""
    if answer is not None and answer.outcome is not Outcome.FAILED:
        return answer.texts
    return previous.observed if previous is not None else ()


def _dkim_wanted(domain: SendingDomain, key: DkimPublicKey, settings: Settings) -> expected.Wanted:
    name = domain.spec.domain
    if domain.spec.dkim.publish is DkimPublish.CNAME:
        return expected.dkim_cname(name, key.selector, domain.metadata.uid, settings.dns.dkim_zone)
    return expected.dkim_txt(name, key.selector, key.public_key)
