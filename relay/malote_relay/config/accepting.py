"""How mail is taken: listeners, what a client may take of the relay, and which senders are believed."""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from malote_relay.config.fields import ListeningPort, NotNegative, Positive, Seconds, Struct


class SenderMode(enum.StrEnum):
    """How the existence of a sender address is established before its first use."""

    CALLOUT = "Callout"
    LIST = "List"
    OFF = "Off"


class UnknownSender(enum.StrEnum):
    """What happens to a sender whose existence could not be established either way."""

    ACCEPT = "Accept"
    DEFER = "Defer"


class SenderVerification(Struct, frozen=True, kw_only=True):
    """The call-out policy and its limits; times in seconds."""

    mode: SenderMode = SenderMode.CALLOUT
    unknown: UnknownSender = UnknownSender.ACCEPT
    senders: tuple[str, ...] = ()
    timeout: Seconds = 10.0
    present_ttl: NotNegative = 7 * 86_400
    absent_ttl: NotNegative = 300
    unknown_ttl: NotNegative = 600
    probes_per_domain_per_minute: Positive = 60
    source_address: str = ""


class Listen(Struct, frozen=True, kw_only=True):
    """The listeners. An empty address means every one; port 0 lets the system choose (tests).

    `processes` are those that speak to clients beside the one that stores and sends: 0 for none, all is done in one.
    Bounces are taken in where there is a `bounce_port`.
    """

    address: str = ""
    processes: Annotated[int, Meta(ge=0, le=64)] = 0
    submission_port: ListeningPort = 2587
    submissions_port: ListeningPort = 2465
    observe_port: ListeningPort = 9090
    bounce_port: ListeningPort | None = None


class Limits(Struct, frozen=True, kw_only=True):
    """What one client, and all together, may take of the relay; times in seconds."""

    max_sessions: Positive = 500
    max_sessions_per_client: Positive = 50
    command_timeout: Seconds = 300.0
    data_timeout: Seconds = 600.0
    max_body_bytes_in_flight: Positive = 512 * 1024 * 1024
    min_free_bytes: NotNegative = 64 * 1024 * 1024
    max_auth_failures_per_session: Positive = 3
