"""Objects that cannot be made sense of: their status says so, what was understood of them before stays in force.

The CRDs and the structs agree (a test proves it), so this is for a CRD of another version than the operator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from malote_operator.api import API_VERSION
from malote_operator.api.meta import Condition
from malote_operator.kube.client import Object
from malote_operator.kube.errors import NotFound
from malote_operator.kube.kinds import PLAN, SENDING_DOMAIN, TENANT
from malote_operator.policy.conditions import merge, no, yes

from .cache import Unreadable
from .context import Context
from .queue import Key

_KINDS = {kind.name: kind for kind in (PLAN, TENANT, SENDING_DOMAIN)}
Reconcile = Callable[[Key], Awaitable[float | None]]


def or_say_so(context: Context, reconcile: Reconcile) -> Reconcile:
    """`reconcile` for whatever can be understood; for the rest its status says why it cannot."""

    async def visit(key: Key) -> float | None:
        one = context.cache.unreadable.get(key)
        if one is None:
            return await reconcile(key)
        await _say_so(context, key, one)
        return None

    return visit


async def _say_so(context: Context, key: Key, one: Unreadable) -> None:
    before = _conditions(one.status)
    message = (
        f"the operator cannot make sense of this version of the object: {one.why}. Correct the field, or bring"
        " CustomResourceDefinitions and operator to the same version; until then what it said before stays in force"
    )
    decided = (
        no("Ready", "NotUnderstood", message),
        no("Reconciling", "NotUnderstood"),
        yes("Stalled", "NotUnderstood", message),
    )
    kept = tuple(one for one in before if one.type not in {each.type for each in decided})
    conditions = (*merge(before, decided, one.metadata.generation, context.now()), *kept)
    if conditions == before and one.status.get("observedGeneration") == one.metadata.generation:
        return
    metadata: Object = {"name": key.name, "uid": one.metadata.uid}
    if key.namespace:
        metadata["namespace"] = key.namespace
    # What the status said besides is written again: left out, server-side apply would take it away.
    status = one.status | {
        "observedGeneration": one.metadata.generation,
        "conditions": msgspec.to_builtins(conditions),
    }
    kind = _KINDS[key.kind]
    body: Object = {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "status": status}
    try:
        result = await context.api.apply(kind, body, subresource="status")
    except NotFound:
        return  # it went meanwhile
    context.cache.update(kind, result)


def _conditions(status: Object) -> tuple[Condition, ...]:
    try:
        return msgspec.convert(status.get("conditions") or [], tuple[Condition, ...])
    except msgspec.ValidationError:
        return ()
