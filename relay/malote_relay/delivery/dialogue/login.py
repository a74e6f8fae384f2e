"""Signing in to a smart host: RFC 4954, with PLAIN (RFC 4616) or else LOGIN, which some know alone."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping

from malote_relay.delivery.peer import Login
from malote_relay.delivery.reply import Reply

Command = Callable[[str, str], Awaitable[Reply]]
"""Sends a line and gives its reply; the second argument names the step, for words that must not show the line."""


def mechanisms(extensions: Mapping[str, str]) -> frozenset[str]:
    """What the server offers; "AUTH=" is how it was announced before RFC 2554, and still is by some."""
    offered = extensions.get("AUTH", "").upper().split()
    for keyword, parameters in extensions.items():
        if keyword.startswith("AUTH="):
            offered += [keyword.removeprefix("AUTH="), *parameters.upper().split()]
    return frozenset(offered)


async def sign_in(command: Command, extensions: Mapping[str, str], login: Login) -> Reply | None:
    """The server's last word; None when it offers no way that we know."""
    offered = mechanisms(extensions)
    if "PLAIN" in offered:
        words = f"\0{login.username}\0{login.password}"
        return await command(f"AUTH PLAIN {_encoded(words)}", "AUTH")
    if "LOGIN" not in offered:
        return None
    reply = await command("AUTH LOGIN", "AUTH")
    for answer in (login.username, login.password):
        if reply.code != 334:
            return reply
        reply = await command(_encoded(answer), "AUTH")
    return reply


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
