"""Beginning TLS on a connection and judging what came of it: RFC 3207, RFC 7435, RFC 7672, RFC 8461.

`Handshakes.ladder` says what may be tried with a host, best first: what a domain requires has one rung and nothing
below it, what is opportunistic goes down to clear text.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from malote_relay.delivery.peer import Peer
from malote_relay.delivery.tls.results import ResultType, Trouble
from malote_relay.delivery.tls.security import OPPORTUNISTIC, Level, Security

_EXPIRED: Final = frozenset({9, 10})
_WRONG_NAME: Final = frozenset({62, 64})
_UNTRUSTED: Final = frozenset({2, 18, 19, 20, 21, 24, 27})
"""X509_V_ERR_… of OpenSSL, by what RFC 8460 calls them."""

_CUT_OFF: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""What the library calls a connection that ended."""

_DER: Final = 2


class TlsFailed(Exception):
    """No TLS, or not what was asked for."""

    def __init__(self, trouble: Trouble):
        super().__init__(trouble.words)
        self.trouble = trouble


@dataclass(frozen=True, slots=True)
class Handshake:
    """One way of beginning TLS with a host. `server_name` is asked for (SNI), and verified where that is done."""

    context: ssl.SSLContext
    security: Security = OPPORTUNISTIC
    server_name: str = ""


class Handshakes:
    """Makes handshakes. `authorities` is a file of certificates to believe, "" for the system's.

    Contexts are made when first needed: the system's authorities take room that most relays never need.
    """

    def __init__(self, authorities: str = ""):
        self._authorities = authorities
        self._unverified = _context()
        self._verified: ssl.SSLContext | None = None

    def ladder(self, peer: Peer) -> Sequence[Handshake | None]:
        """What may be tried with `peer`, one after another while TLS is what fails; None: clear text."""
        security = peer.security
        match security.level:
            case Level.OPPORTUNISTIC:
                return Handshake(self._unverified, security, peer.name), None
            case Level.TESTING:
                verified = Handshake(self.verified(), security, peer.name)
                return verified, Handshake(self._unverified, OPPORTUNISTIC, peer.name), None
            case Level.ENCRYPTED:
                return (Handshake(self._unverified, security, peer.name),)
            case Level.VERIFIED:
                return (Handshake(self.verified(), security, peer.name),)
            case Level.DANE:
                return (Handshake(self._unverified, security, security.names[0]),)

    def verified(self) -> ssl.SSLContext:
        """The context that verifies a host's name and who vouches for it. Raises OSError for a bad file."""
        if self._verified is None:
            context = ssl.create_default_context(cafile=self._authorities or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.hostname_checks_common_name = (
                False  # RFC 8461 section 4.1: the name stands among the alternatives
            )
            self._verified = context
        return self._verified


def opportunistic_tls() -> Handshake:
    """TLS 1.2 or newer with whoever answers; nothing is verified (RFC 7435)."""
    return Handshake(_context())


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def begin(
    transport: asyncio.Transport, protocol: asyncio.Protocol, handshake: Handshake, seconds: float
) -> tuple[asyncio.Transport, str]:
    """Shake hands; the new transport, and what was agreed on and verified, in words. Raises TlsFailed."""
    try:
        secured = await asyncio.get_running_loop().start_tls(
            transport,
            protocol,
            handshake.context,
            server_hostname=handshake.server_name or None,
            ssl_handshake_timeout=seconds,
        )
    except (OSError, ssl.SSLError, TimeoutError, UnicodeError, ValueError) as error:
        raise TlsFailed(trouble_of(error)) from error
    if secured is None:
        raise TlsFailed(Trouble(ResultType.VALIDATION_FAILURE, "it left the handshake"))
    session: Any = secured.get_extra_info("ssl_object")
    security = handshake.security
    verified = security.why
    if security.level is Level.DANE:
        from malote_relay.delivery.tls import certificates  # noqa: PLC0415  # see its description

        judged = certificates.verify(security.tlsa, _chain(session), security.names, time.time())
        if isinstance(judged, Trouble):
            secured.abort()
            raise TlsFailed(judged)
        verified = judged
    return secured, f"{session.version()} {session.cipher()[0]} {verified}"


def trouble_of(error: Exception) -> Trouble:
    """What an error of the handshake, or of the connection while it was not certainly over, means."""
    result = ResultType.VALIDATION_FAILURE
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code in _EXPIRED:
            result = ResultType.EXPIRED
        elif code in _WRONG_NAME:
            result = ResultType.HOST_MISMATCH
        elif code in _UNTRUSTED:
            result = ResultType.NOT_TRUSTED
        return Trouble(result, f"its certificate is not valid: {error.verify_message}", lasting=True)
    lasting = isinstance(error, ssl.SSLError | ValueError) and not isinstance(error, _CUT_OFF)
    return Trouble(result, str(error) or type(error).__name__, lasting)


def _chain(session: Any) -> list[bytes]:
    """The certificates that the server sent, its own first. Python 3.13 has it in the open, those before inside."""
    if hasattr(session, "get_unverified_chain"):
        return list(session.get_unverified_chain())
    return [one.public_bytes(_DER) for one in session._sslobj.get_unverified_chain() or ()]
