"""What reconciling needs of mail: that a tenant is welcomed, or why that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from malote_operator.api.plan import Plan
from malote_operator.api.tenant import Tenant
from malote_operator.policy.model import TenantDecision


class Undeliverable(Exception):
    """The mail was not taken over by the platform's mail host; the message says why. It is tried again later."""


class Postman(Protocol):
    """Sends mails to tenants."""

    async def welcome(
        self, tenant: Tenant, plan: Plan, decision: TenantDecision, passwords: Mapping[str, str], *, request: str
    ) -> None:
        """Send the welcome mail; returns once the mail host has taken it. Raises Undeliverable.

        `request` tells mails that were asked for anew apart; the same mail sent twice has the same Message-ID.
        """
        ...
