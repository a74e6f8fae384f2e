"""The whole configuration of one relay, made of its subjects."""

from __future__ import annotations

from malote_relay.config.accepting import Limits, Listen, SenderVerification, SignIn, Trace
from malote_relay.config.bounces import Bounces
from malote_relay.config.feedback import AccountPause, Suppression
from malote_relay.config.fields import Struct, Text
from malote_relay.config.notices import Notices
from malote_relay.config.sending import Delivery, Resolver
from malote_relay.config.tenant import Account, Domain, Plan, Submission


class Rehearsal(Struct, frozen=True, kw_only=True):
    """For demonstrations and tests only: seconds by which the relay's clock runs ahead."""

    clock_offset_seconds: int = 0


class RelayConfig(Struct, frozen=True, kw_only=True):
    """The whole configuration of one tenant's relay. `hostname` is what its greeting and EHLO say."""

    tenant: Text
    hostname: str
    plan: Plan
    delivery: Delivery
    submission: Submission = Submission()
    accounts: tuple[Account, ...] = ()
    domains: tuple[Domain, ...] = ()
    sender_verification: SenderVerification = SenderVerification()
    notices: Notices = Notices()
    bounces: Bounces = Bounces()
    suppression: Suppression = Suppression()
    account_pause: AccountPause = AccountPause()
    resolver: Resolver = Resolver()
    listen: Listen = Listen()
    limits: Limits = Limits()
    sign_in: SignIn = SignIn()
    trace: Trace = Trace()
    rehearsal: Rehearsal = Rehearsal()
