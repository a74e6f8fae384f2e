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
    """The call-out policy and its limits; times in seconds.

    Call-outs leave from `source_address` and greet with `helo_name`; "" means those of delivery. With a SOCKS5 proxy
    they leave by that, and `source_address` means nothing.
    """

    mode: SenderMode = SenderMode.CALLOUT
    unknown: UnknownSender = UnknownSender.ACCEPT
    senders: tuple[str, ...] = ()
    timeout: Seconds = 10.0
    present_ttl: NotNegative = 7 * 86_400
    absent_ttl: NotNegative = 300
    unknown_ttl: NotNegative = 600
    probes_per_domain_per_minute: Positive = 60
    source_address: str = ""
    helo_name: str = ""


class Listen(Struct, frozen=True, kw_only=True):
    """The listeners. An empty address means every one; port 0 lets the system choose (tests).

    Connections from `proxy_networks` must begin with a PROXY header (version 1 or 2), which names the client;
    from anywhere else such a header means nothing. `processes` are those that speak to clients beside the one that
    stores and sends: 0 for none, all is done in one. Bounces are taken in where there is a `bounce_port`.
    """

    address: str = ""
    processes: Annotated[int, Meta(ge=0, le=64)] = 0
    submission_port: ListeningPort = 2587
    submissions_port: ListeningPort = 2465
    observe_port: ListeningPort = 9090
    bounce_port: ListeningPort | None = None
    proxy_networks: tuple[str, ...] = ()


class Limits(Struct, frozen=True, kw_only=True):
    """What one client, and all together, may take of the relay; times in seconds.

    A client is an IPv4 address or an IPv6 network of 64 bits. Connections count to the limit per minute until
    their client has signed in. A session ends after `max_refused_per_session` commands that were refused, or named a
    recipient again, without a message taken in between.
    """

    max_sessions: Positive = 500
    max_sessions_per_client: Positive = 50
    max_connections_without_sign_in_per_minute: Positive = 600
    sign_in_timeout: Seconds = 180.0
    command_timeout: Seconds = 300.0
    data_timeout: Seconds = 600.0
    max_body_bytes_in_flight: Positive = 512 * 1024 * 1024
    min_free_bytes: NotNegative = 64 * 1024 * 1024
    max_auth_failures_per_session: Positive = 3
    max_refused_per_session: Positive = 1000


class SignIn(Struct, frozen=True, kw_only=True):
    """What failed sign-ins cost; times in seconds.

    After `max_failures_per_client`, or so many with one account, within `window` a client's next ones are refused
    unlooked at, until one is forgotten. After `max_failures_per_account` an account is under attack: each client then
    has one failure with it. None of it holds for a client that has signed in to the account within `remembered_for`:
    it has `max_failures_per_known_client` with the account.
    """

    window: Seconds = 600.0
    max_failures_per_client: Positive = 20
    max_failures_per_client_and_account: Positive = 5
    max_failures_per_account: Positive = 100
    max_failures_per_known_client: Positive = 200
    remembered_for: NotNegative = 7 * 86_400


class Trace(Struct, frozen=True, kw_only=True):
    """What the Received field tells the world of the client: with `client`, its EHLO name and address."""

    client: bool = False
