"""Which header fields a signature covers (RFC 6376 sections 5.4.1 and 5.4.2).

A name may stand in `h=` once more than the field occurs: then nobody can add another one without breaking the
signature ("oversigning"). That is done for the fields a reader sees or a program acts on. Fields that a mailing list
rightly adds (List-*, Sender, Resent-*) are covered as often as they occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from malote_relay.signing import canonical

OVERSIGNED: Final = (
    b"from",
    b"reply-to",
    b"subject",
    b"date",
    b"message-id",
    b"to",
    b"cc",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
)
SIGNED: Final = (
    b"sender",
    b"in-reply-to",
    b"references",
    b"auto-submitted",
    b"feedback-id",
    b"resent-date",
    b"resent-from",
    b"resent-sender",
    b"resent-to",
    b"resent-cc",
    b"resent-message-id",
    b"list-id",
    b"list-help",
    b"list-unsubscribe",
    b"list-unsubscribe-post",  # RFC 8058 section 4: without it one-click does not count
    b"list-subscribe",
    b"list-post",
    b"list-owner",
    b"list-archive",
)

_MORE: Final = frozenset(OVERSIGNED)


def select(fields: Sequence[tuple[bytes, bytes]]) -> tuple[list[bytes], bytes]:
    """The names for `h=` and the canonical text of the fields they stand for.

    Of a field that occurs several times the lowest is taken first; a name beyond the last one stands for nothing.
    """
    by_name: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        by_name.setdefault(name.rstrip(b" \t").lower(), []).append(value)
    names: list[bytes] = []
    text: list[bytes] = []
    for name in (*OVERSIGNED, *(name for name in SIGNED if name in by_name)):
        for value in reversed(by_name.get(name, ())):
            names.append(name)
            text.append(canonical.header_field(name, value))
        if name in _MORE:
            names.append(name)
    return names, b"".join(text)
