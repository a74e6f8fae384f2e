"""What a client asks for with DSN: the parameters of RFC 3461 section 4, read strictly. Pure.

They are kept as they came, to be honoured here and passed on to servers that know them too. So nothing is taken
that the next server would refuse, or that would not survive in a report.
"""

from __future__ import annotations

import re
from typing import Final

from malote_relay.store.model import Notify, Return

MAX_ENVID: Final = 100
"""RFC 3461 section 4.4."""

MAX_ORCPT: Final = 500
"""RFC 3461 section 4.2."""

_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")
_HEX: Final = re.compile(r"\+([0-9A-F]{2})")
_ATOM: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+\Z")
_UTF8_ADDRESS: Final = re.compile(r"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|\\x\{[0-9A-F]{2,6}\}|\+[0-9A-F]{2})*\Z")
_BY_NAME: Final = {"SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}


class ParameterError(ValueError):
    """The parameter's value is not written as it must be; the message says how."""


def ret(value: str) -> Return:
    """RET: how much of the message a report brings back. Raises ParameterError."""
    match value.upper():
        case "FULL":
            return Return.FULL
        case "HDRS":
            return Return.HEADERS
        case _:
            raise ParameterError("write RET=FULL or RET=HDRS")


def envid(value: str) -> str:
    """ENVID: what reports on this message name it by. Raises ParameterError."""
    if len(value) > MAX_ENVID:
        raise ParameterError(f"ENVID may have {MAX_ENVID} characters")
    _look_at_xtext("ENVID", value)
    return value


def notify(value: str) -> Notify:
    """NOTIFY: when the sender wants to hear of this recipient. Raises ParameterError."""
    words = value.upper().split(",")
    if words == ["NEVER"]:
        return Notify.NEVER
    asked = Notify.NEVER
    for word in words:
        if word not in _BY_NAME:
            raise ParameterError("write NOTIFY=NEVER, or one or more of SUCCESS, FAILURE, DELAY with commas between")
        asked |= _BY_NAME[word]
    return asked


def orcpt(value: str, *, smtputf8: bool) -> str:
    """ORCPT: the recipient as the sender named it, as it is kept: in ASCII. Raises ParameterError.

    RFC 6533 section 3 has the type utf-8, whose characters may stand for themselves in a transaction with SMTPUTF8
    only; they are kept as \\x{HEX}, the form that may stand anywhere.
    """
    if len(value.encode()) > MAX_ORCPT:
        raise ParameterError(f"ORCPT may have {MAX_ORCPT} characters")
    kind, semicolon, address = value.partition(";")
    if not semicolon or not address or not _ATOM.match(kind):
        raise ParameterError("write ORCPT=rfc822;user@domain, with + and = as +2B and +3D")
    if kind.lower() != "utf-8":
        _look_at_xtext("ORCPT", address)
        return value
    if not _UTF8_ADDRESS.match(address) or not (smtputf8 or address.isascii()):
        raise ParameterError("write ORCPT=utf-8;address with characters beyond ASCII as \\x{HEX}")
    kept = kind + ";" + "".join(c if c.isascii() else f"\\x{{{ord(c):X}}}" for c in address)
    if len(kept) > MAX_ORCPT:
        raise ParameterError(f"ORCPT may have {MAX_ORCPT} characters, those beyond ASCII counted as \\x{{HEX}}")
    return kept


def _look_at_xtext(name: str, value: str) -> None:
    if not value or not _XTEXT.match(value):
        raise ParameterError(f"{name} must be xtext (RFC 3461): printable ASCII with + and = as +2B and +3D")
    if any(not 0x20 <= int(code, 16) <= 0x7E for code in _HEX.findall(value)):
        raise ParameterError(f"{name} stands for characters that are not printable ASCII")
