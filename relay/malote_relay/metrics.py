"""What a relay counts, under the names in the product's contract (`malote_…`).

Every label has a bounded set of values: an account's name, an enum, a bounce class from
`delivery/answers/classify.py`; never a sender, a recipient, a host or a message id. One `Metrics` per relay, with a
registry of its own, so that tests can hold several side by side.
"""

from __future__ import annotations

import enum
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector


class Refused(enum.StrEnum):
    """Why a message, a recipient or a sign-in was refused: the values of the label `reason`."""

    AUTH = "auth"
    AUTH_CAPPED = "auth_capped"
    SESSIONS = "sessions"
    SUBMISSION_CLOSED = "submission_closed"
    ACCOUNT_SUSPENDED = "account_suspended"
    ACCOUNT_PAUSED = "account_paused"
    DOMAIN = "domain"
    HEADER_FROM = "header_from"
    SENDER_ABSENT = "sender_absent"
    SENDER_UNKNOWN = "sender_unknown"
    SENDER_NOT_LISTED = "sender_not_listed"
    RECIPIENT_SYNTAX = "recipient_syntax"
    RECIPIENT_SUPPRESSED = "recipient_suppressed"
    TOO_MANY_RECIPIENTS = "too_many_recipients"
    OVER_LIMIT = "over_limit"
    TOO_BIG = "too_big"
    MALFORMED = "malformed"
    LOOP = "loop"
    BULK_RULES = "bulk_rules"
    NO_ROOM = "no_room"
    ERROR = "error"


class Callout(enum.StrEnum):
    """How a call-out ended: the values of the label `result` of malote_callouts_total.

    `RATE_LIMITED`: none was made, since the domain was asked too often, or is left alone for a minute.
    """

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"
    RATE_LIMITED = "rate_limited"


class BounceMail(enum.StrEnum):
    """What came to a return path or feedback address: the values of the label `kind` of malote_bounce_mail_total."""

    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    KNOWN = "known"
    """Told before."""
    UNMATCHED = "unmatched"
    """About a message that is not, or no longer, known here."""
    UNBELIEVED = "unbelieved"
    """A complaint that has no return path in it, from nobody who would be believed without."""
    NO_FAILURE = "no_failure"
    """A report of a delay, a success, or of mail that is no spam."""
    AUTOMATIC_REPLY = "automatic_reply"
    CHALLENGE = "challenge"
    UNKNOWN = "unknown"


NOTICE_KINDS = ("failed", "delayed", "relayed", "bounced", "summary")

SUPPRESSION_REASONS = ("bounce", "complaint", "manual")

QUEUE_STATES = ("ready", "deferred", "held")
STANDINGS = ("good", "slowed", "paused", "down")
"""How destinations stand: the values of the label `state` of malote_destinations."""

_DELIVERY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400, 432_000)


class Metrics:
    """All metrics of one relay. Label values must come from the enums above where there is one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        ProcessCollector(registry=registry)

        self.messages_accepted = Counter(
            "malote_messages_accepted", "Messages accepted: on disk, synced.", ["account"], registry=registry
        )
        self.recipients_accepted = Counter(
            "malote_recipients_accepted", "Recipients accepted: what a plan counts.", ["account"], registry=registry
        )
        self.messages_refused = Counter(
            "malote_messages_refused", "Refusals during submission, by reason.", ["reason"], registry=registry
        )
        self.deliveries = Counter(
            "malote_deliveries",
            "Ends of delivery attempts, one per recipient (bounce_class is empty for delivered).",
            ["result", "bounce_class"],
            registry=registry,
        )
        self.delivery_seconds = Histogram(
            "malote_delivery_seconds",
            "From the time a recipient was released to its delivery.",
            buckets=_DELIVERY_SECONDS,
            registry=registry,
        )
        self.notices = Counter(
            "malote_notices",
            "Notices to senders (DSN) by what they tell: sent, or withheld because their sender had too many.",
            ["kind", "result"],
            registry=registry,
        )
        self.async_bounces = Counter(
            "malote_async_bounces", "Bounces told of after delivery.", ["bounce_class"], registry=registry
        )
        self.complaints = Counter("malote_complaints", "Complaints of recipients.", registry=registry)
        self.bounce_mail = Counter(
            "malote_bounce_mail", "Messages taken in for bounces, by what they were.", ["kind"], registry=registry
        )
        self.suppressed = Counter(
            "malote_suppressed", "Addresses that entered the suppression list.", ["reason"], registry=registry
        )
        self.account_paused = Gauge(
            "malote_account_paused",
            "1 while an account is paused for its bounces or complaints.",
            ["account"],
            registry=registry,
        )
        self.queue_messages = Gauge(
            "malote_queue_messages", "Recipients waiting: ready, deferred or held.", ["state"], registry=registry
        )
        self.queue_oldest_seconds = Gauge(
            "malote_queue_oldest_seconds", "Age of the oldest message waiting; 0 for none.", registry=registry
        )
        self.queue_stalled_seconds = Gauge(
            "malote_queue_stalled_seconds",
            "For how long mail has been due that could move, and nothing has; 0 while something moves.",
            registry=registry,
        )
        self.destinations = Gauge(
            "malote_destinations",
            "Destinations (sets of MX hosts) that the relay has to do with now, by how they stand.",
            ["state"],
            registry=registry,
        )
        self.slowdowns = Counter(
            "malote_slowdowns",
            'Times a destination asked to slow down, by provider ("other" for those without a name).',
            ["provider"],
            registry=registry,
        )
        self.hour_charged = Gauge(
            "malote_hour_charged", "Recipients charged to the current hour (UTC).", registry=registry
        )
        self.hour_limit = Gauge("malote_hour_limit", "The plan's recipients per hour.", registry=registry)
        self.hour_tolerance = Gauge(
            "malote_hour_tolerance", "Recipients that may be held for the next hour.", registry=registry
        )
        self.hour_held = Gauge("malote_hour_held", "Recipients now held for a later hour.", registry=registry)
        self.dkim_key_age_days = Gauge(
            "malote_dkim_key_age_days", "Days since the oldest signing key's file was written.", registry=registry
        )
        self.config_errors = Counter(
            "malote_config_errors", "Configurations read that could not be used.", registry=registry
        )
        self.config_error = Gauge(
            "malote_config_error",
            "1 while the configuration on disk, or a part of it, cannot be used and an earlier one is in force.",
            registry=registry,
        )
        self.clock_steps = Counter(
            "malote_clock_steps", "Times the clock was found moved by more than a minute.", registry=registry
        )
        self.clock_behind_seconds = Gauge(
            "malote_clock_behind_seconds",
            "By how much the clock is behind the latest hour mail was charged to, which does not reopen; 0 for not.",
            registry=registry,
        )
        self.sessions = Gauge("malote_sessions", "Submission sessions open now.", registry=registry)
        self.recipients_lost = Counter(
            "malote_recipients_lost",
            "Recipients that failed because their message's content was found damaged, or gone.",
            registry=registry,
        )
        self.set_aside = Gauge(
            "malote_set_aside", "Things found damaged at the last start, and set aside.", registry=registry
        )
        self.callouts = Counter("malote_callouts", "Sender call-outs by result.", ["result"], registry=registry)

        # Finding a series by its labels costs more than counting in it.
        self._of_account = lru_cache(maxsize=256)(
            lambda account: (self.messages_accepted.labels(account), self.recipients_accepted.labels(account))
        )
        self.deliveries_of = lru_cache(maxsize=256)(self.deliveries.labels)

        # Series that exist from the start, so that a dashboard shows 0 rather than a gap.
        for reason in Refused:
            self.messages_refused.labels(reason.value)
        for result in Callout:
            self.callouts.labels(result.value)
        for mail in BounceMail:
            self.bounce_mail.labels(mail.value)
        for kind in NOTICE_KINDS:
            self.notices.labels(kind, "sent")
            self.notices.labels(kind, "withheld")
        for entered in SUPPRESSION_REASONS:
            self.suppressed.labels(entered)
        for state in QUEUE_STATES:
            self.queue_messages.labels(state)
        for standing in STANDINGS:
            self.destinations.labels(standing)
        self.slowdowns.labels("other")
        self.async_bounces.labels("other")

    def refused(self, reason: Refused) -> None:
        """Count one refusal."""
        self.messages_refused.labels(reason.value).inc()

    def accepted(self, account: str, recipients: int) -> None:
        """Count one message accepted for so many recipients."""
        messages, of_recipients = self._of_account(account)
        messages.inc()
        of_recipients.inc(recipients)
