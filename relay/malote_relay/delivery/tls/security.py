"""What TLS a session with one host must have, decided before it is opened. Pure values."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """How much is asked for."""

    OPPORTUNISTIC = "opportunistic"
    """TLS when it can be had, with whoever answers; else clear text."""
    TESTING = "testing"
    """Opportunistic, but whether it would have been verified is found out and told (MTA-STS mode testing)."""
    ENCRYPTED = "encrypted"
    """TLS with whoever answers; never clear text (TLSA records none of which can be used, RFC 7672 section 2.2)."""
    VERIFIED = "verified"
    """TLS with a certificate for the host's name, from an authority believed in; never anything else."""
    DANE = "dane"
    """TLS with a certificate that a TLSA record names; never anything else."""


@dataclass(frozen=True, slots=True, order=True)
class Tlsa:
    """A TLSA record that can be used (RFC 6698 section 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Security:
    """What is asked for. Sessions of equal security are as good as each other.

    `why` is who asks, for people ("mta-sts"); `implicit` is TLS from the first octet. With DANE, `names` are those a
    certificate under a trust anchor may be for, the first of them what is asked for in the handshake (SNI).
    """

    level: Level
    why: str = ""
    implicit: bool = False
    tlsa: tuple[Tlsa, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether clear text is out of the question."""
        return self.level in {Level.ENCRYPTED, Level.VERIFIED, Level.DANE}


OPPORTUNISTIC = Security(Level.OPPORTUNISTIC, "opportunistic")

SMART_HOST = "smart-host"
"""Who asks for the TLS of a smart host: its operator."""
