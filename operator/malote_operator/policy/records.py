"""The records of a SendingDomain: what to paste, and what was seen of each.

A look-up that failed changes no state: what was seen before still counts, and the message says so.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import msgspec

from malote_operator.api import names
from malote_operator.api.sendingdomain import DkimPublish, Purpose, Record, RecordState, SendingDomain
from malote_operator.dns import compare, expected
from malote_operator.dns.model import Answer, Outcome
from malote_operator.settings import Settings

from .model import DkimPublicKey, DomainWorld

CHECKED_AT_RESOLUTION = dt.timedelta(seconds=60)
"""`checkedAt` of a record that stays as it was moves in such steps, so that looking alone writes little."""

_OBSERVED_KEPT = 10
_ONE_VALUE = frozenset({Purpose.DKIM, Purpose.RETURN_PATH_MX})
_SPF = frozenset({Purpose.SPF, Purpose.RETURN_PATH_SPF})


def records_of(domain: SendingDomain, world: DomainWorld, settings: Settings, now: dt.datetime) -> tuple[Record, ...]:
    """The SPF, DKIM and DMARC records with their values and states; the world must hold a key."""
    name, dns, key = domain.spec.domain, settings.dns, world.keys[-1]
    seen = world.observation
    spf_answer = seen.spf if seen else None
    dmarc_answer = seen.dmarc if seen else None
    dkim_answer = seen.dkim if seen else None
    before = {record.purpose: record for record in domain.status.records}
    dkim_wanted = _dkim_wanted(domain, key, settings)
    spf_wanted = expected.spf_record(name, dns.spf_include, _texts(spf_answer, before.get(Purpose.SPF)))
    dmarc_wanted = expected.dmarc_record(name, dns.dmarc_policy, _texts(dmarc_answer, before.get(Purpose.DMARC)))

    def dkim_verdict(answer: Answer) -> compare.Verdict:
        if dkim_wanted.type == "CNAME":
            return compare.dkim_cname(answer.cname, answer.texts, dkim_wanted.value, key.public_key)
        return compare.dkim(answer.texts, key.public_key)

    return (
        _record(
            Purpose.SPF, spf_wanted, spf_answer, before, now, lambda one: compare.spf(one.texts, dns.spf_include)
        ),
        _record(Purpose.DKIM, dkim_wanted, dkim_answer, before, now, dkim_verdict),
        _record(
            Purpose.DMARC,
            dmarc_wanted,
            dmarc_answer,
            before,
            now,
            lambda one: compare.dmarc(one.texts, dns.dmarc_policy),
        ),
    )


def return_path_records_of(
    domain: SendingDomain, world: DomainWorld, settings: Settings, now: dt.datetime
) -> tuple[Record, ...]:
    """The MX and SPF records of the return path with their values and states; none before they were looked for."""
    host, include, seen = domain.spec.return_path, settings.dns.spf_include, world.observation
    endpoint = names.endpoint_host(domain.spec.tenant_ref.name, settings)
    mx_answer = seen.return_path_mx if seen else None
    spf_answer = seen.return_path_spf if seen else None
    before = {record.purpose: record for record in domain.status.records if record.name == host}
    if Purpose.RETURN_PATH_SPF not in before and (spf_answer is None or spf_answer.name != host):
        return ()
    mx_wanted = expected.return_path_mx(host, endpoint)
    spf_wanted = expected.spf_record(host, include, _texts(spf_answer, before.get(Purpose.RETURN_PATH_SPF)))
    return (
        _record(
            Purpose.RETURN_PATH_MX, mx_wanted, mx_answer, before, now, lambda one: compare.mx(one.texts, endpoint)
        ),
        _record(
            Purpose.RETURN_PATH_SPF, spf_wanted, spf_answer, before, now, lambda one: compare.spf(one.texts, include)
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


def _record(
    purpose: Purpose,
    wanted: expected.Wanted,
    answer: Answer | None,
    before: dict[Purpose, Record],
    now: dt.datetime,
    judge: Callable[[Answer], compare.Verdict],
) -> Record:
    previous = before.get(purpose)
    if previous is not None and (previous.name != wanted.name or previous.type != wanted.type):
        previous = None
    if previous is not None and purpose in _ONE_VALUE and previous.value != wanted.value:
        previous = None  # what was seen was another key, or another endpoint
    fresh = Record(purpose=purpose, type=wanted.type, name=wanted.name, value=wanted.value)
    if answer is None or answer.name != wanted.name:
        return previous if previous is not None else fresh
    if answer.outcome is Outcome.FAILED:
        return _unlearned(fresh, previous, answer)
    verdict = judge(answer)
    seen = (*answer.cname[:1], *answer.texts) if wanted.type == "CNAME" else answer.texts
    record = Record(
        purpose=purpose,
        type=wanted.type,
        name=wanted.name,
        value=wanted.value,
        state=verdict.state,
        observed=_relevant(purpose, seen),
        message=verdict.message,
        checked_at=now.replace(microsecond=0),
    )
    return _steady(record, previous)


def _unlearned(fresh: Record, previous: Record | None, answer: Answer) -> Record:
    """After a failed look-up: the state stays what it was, and the message says that it is not news."""
    message = f"could not be looked up, which changes nothing: {answer.error}"[:900]
    if previous is None:
        if fresh.purpose in _SPF:
            message += "; if the domain has an SPF record already, add the include: to that one instead"
        return msgspec.structs.replace(fresh, message=message)
    return msgspec.structs.replace(previous, message=message)


def _steady(record: Record, previous: Record | None) -> Record:
    """The previous record where only the time of looking moved, and by little."""
    if previous is None or previous.checked_at is None or record.checked_at is None:
        return record
    alike = (previous.value, previous.state, previous.observed, previous.message) == (
        record.value,
        record.state,
        record.observed,
        record.message,
    )
    return previous if alike and record.checked_at - previous.checked_at < CHECKED_AT_RESOLUTION else record


def _relevant(purpose: Purpose, texts: tuple[str, ...]) -> tuple[str, ...]:
    """What to show of the answer: at the domain itself stand many TXT records that are none of our business."""
    if purpose in _SPF:
        texts = tuple(text for text in texts if text.lower().lstrip(" \"'").startswith("v=spf"))
    return tuple(sorted(texts))[:_OBSERVED_KEPT]


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
