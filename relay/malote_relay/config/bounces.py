"""Taking bounces and complaints in: return paths of the relay's own, and what a sender of bounces may take of it."""

from __future__ import annotations

from malote_relay.config.fields import Positive, Seconds, Struct


class Bounces(Struct, frozen=True, kw_only=True):
    """Bounces and complaints that come after delivery, on the port `listen.bouncePort`.

    `secrets` are files in `keys/`, each with 16 octets or more. With the first of them the return paths of domains
    that have a `returnPath` are made; all are believed, so that one can be replaced. A return path takes bounces for
    `valid_days` after its message was accepted. With `tell_senders` the relay tells the sender: nobody else does.

    `feedback_addresses` take complaints (ARF) from mailbox providers. One is believed when it has the return path of
    the message in it, or comes from `feedback_networks`: those of the providers who leave it out.
    """

    secrets: tuple[str, ...] = ()
    valid_days: Positive = 14
    feedback_addresses: tuple[str, ...] = ()
    feedback_networks: tuple[str, ...] = ()
    tell_senders: bool = True
    max_message_bytes: Positive = 1_048_576
    max_sessions: Positive = 50
    max_sessions_per_client: Positive = 10
    max_connections_per_client_per_minute: Positive = 240
    max_messages_per_client_per_minute: Positive = 120
    command_timeout: Seconds = 120.0
    data_timeout: Seconds = 180.0
