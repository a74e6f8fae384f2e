"""The parameters of MAIL and RCPT by which a client asks for notifications (RFC 3461 section 4), passed on. Pure.

To a server that offers DSN goes what our client asked for, and nothing it did not: only ORCPT is added where it is
missing, so that whoever reports later names the recipient as the sender wrote it (section 5.2.1).
"""

from __future__ import annotations

import dataclasses
import re

from malote_relay.store.model import DsnRequest, Notify

_XCHAR = re.compile(r"[!-*,-<>-~]")
_HEX = re.compile(r"\+([0-9A-F]{2})")
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_KEYWORDS = ((Notify.SUCCESS, "SUCCESS"), (Notify.FAILURE, "FAILURE"), (Notify.DELAY, "DELAY"))


def mail_parameters(dsn: DsnRequest) -> str:
    """What is added to MAIL, beginning with a blank; "" for nothing."""
    return (f" RET={dsn.ret.value}" if dsn.ret else "") + (f" ENVID={dsn.envid}" if dsn.envid else "")


def rcpt_parameters(dsn: DsnRequest, address: str) -> str:
    """What is added to RCPT, beginning with a blank."""
    notify = ""
    if dsn.asked:
        notify = " NOTIFY=" + (",".join(name for flag, name in _KEYWORDS if flag in dsn.notify) or "NEVER")
    return f"{notify} ORCPT={dsn.orcpt or original_recipient(address)}"


def to_return_path(dsn: DsnRequest) -> DsnRequest:
    """What is passed on with a return path of the relay's own: failures are all that is read there.

    Of successes and delays the sender would hear nothing by it: of those the relay tells.
    """
    return dataclasses.replace(dsn, notify=Notify.FAILURE) if dsn.notify else dsn


def original_recipient(address: str) -> str:
    """An address as ORCPT has it: `rfc822;xtext`, or for one outside ASCII `utf-8;…` (RFC 6533 section 3)."""
    return f"rfc822;{to_xtext(address)}" if address.isascii() else f"utf-8;{to_utf8_xtext(address)}"


def to_xtext(text: str) -> str:
    """ASCII text as xtext (RFC 3461 section 4)."""
    return "".join(c if _XCHAR.fullmatch(c) else f"+{ord(c):02X}" for c in text)


def from_xtext(text: str) -> str:
    """What xtext stands for; what is no xtext stands for itself."""
    return _HEX.sub(lambda found: chr(int(found[1], 16)), text)


def to_utf8_xtext(address: str) -> str:
    """An address in the form that any path carries (utf-8-addr-xtext, RFC 6533 section 3)."""
    return "".join(c if "\x21" <= c <= "\x7e" and c not in "+=\\" else f"\\x{{{ord(c):02X}}}" for c in address)


def from_utf8_xtext(text: str) -> str:
    """The address that `to_utf8_xtext` was given; what stands for no character stays as it is."""
    return _EMBEDDED.sub(lambda found: _character(int(found[1], 16)) or found[0], text)


def _character(number: int) -> str:
    return chr(number) if number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF else ""
