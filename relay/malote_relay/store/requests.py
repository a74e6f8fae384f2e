"""What a client asked for with DSN, as one column: empty for nothing, which is nearly always."""

from __future__ import annotations

from malote_relay.store.model import NO_DSN, DsnRequest, Notify, Return


def packed(request: DsnRequest) -> str:
    """The column's text. Neither xtext nor an address type has a space in it (RFC 3461 section 4)."""
    if request == NO_DSN:
        return ""
    return " ".join(
        (str(request.notify.value), str(int(request.asked)), request.ret.value, request.envid, request.orcpt)
    )


def unpacked(text: str) -> DsnRequest:
    """What `packed` was given."""
    if not text:
        return NO_DSN
    notify, asked, ret, envid, orcpt = text.split(" ")
    return DsnRequest(Notify(int(notify)), asked == "1", orcpt, envid, Return(ret))
