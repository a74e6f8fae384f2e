"""Making objects equal to what is wanted, writing only when something would change.

For each object two digests are remembered: of what was wanted and of the live object that resulted. As long as
both are the same, nothing needs to be asked or written. Kinds that are watched have their live digest in the
cache; others (Secrets) are read by name each time. When digests differ the object is read, compared exactly
(see `exact`) and put right.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

from . import exact
from .client import FIELD_MANAGER, Api, Object
from .errors import Conflict, NameConflict, NotFound
from .kinds import BY_NAME, Kind

MANAGED_BY = "app.kubernetes.io/managed-by"

Name = tuple[str, str, str]
"""Kind, namespace, name of an object."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What `ensure` found or made. `live` is None when nothing had to be read."""

    changed: bool
    live: Object | None = None


def kind_of(obj: Object) -> Kind:
    """The Kind of a rendered object."""
    return BY_NAME[obj["apiVersion"], obj["kind"]]


def name_of(obj: Object) -> Name:
    """The key under which an object is remembered."""
    return (obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def foreign(live: Object, owner_uid: str, home: str = "") -> str:
    """Why the operator must not touch `live`, in words; "" if it may.

    Ours is what carries our label, was written by our field manager, and (given `owner_uid`) belongs to that owner.
    In the namespace `home`, where nobody else has rights, the label alone may have got lost: it is put back.
    """
    metadata = live["metadata"]
    at_home = bool(home) and metadata.get("namespace") == home
    if not at_home and metadata.get("labels", {}).get(MANAGED_BY) != FIELD_MANAGER:
        return f"it lacks the label {MANAGED_BY}={FIELD_MANAGER}"
    if not exact.has_manager(live, FIELD_MANAGER):
        return f"field manager {FIELD_MANAGER} has never written it"
    if owner_uid and all(reference.get("uid") != owner_uid for reference in metadata.get("ownerReferences", ())):
        return "it belongs to another owner"
    return ""


class Applier:
    """Remembers what it applied. `live_digest` tells a watched object's present digest, None if that is unknown.

    `home`: the namespace that is the operator's own (see `foreign`).
    """

    def __init__(self, api: Api, live_digest: Callable[[Name], bytes | None], *, home: str = "") -> None:
        self._api = api
        self._live_digest = live_digest
        self._home = home
        self._known: dict[Name, tuple[bytes, bytes]] = {}

    def forget(self) -> None:
        """Know nothing any more: everything is read again when next wanted."""
        self._known.clear()

    def drop(self, name: Name) -> None:
        """Forget one object (it was deleted)."""
        self._known.pop(name, None)

    async def find(self, kind: Kind, name: str, namespace: str, owner_uid: str) -> Object | None:
        """An object of ours, or None. Raises NameConflict if there is one that is not ours."""
        live = await self._api.find(kind, name, namespace)
        if live is not None and (why := foreign(live, owner_uid, self._home)):
            raise NameConflict(kind.name, namespace, name, why)
        return live

    async def ensure(self, wanted: Object, owner_uid: str) -> Applied:
        """Make the live object exactly what is wanted. Raises NameConflict, or what the API server says."""
        name = name_of(wanted)
        want = exact.digest(wanted)
        known = self._known.get(name)
        if known is not None and known == (want, self._live_digest(name)):
            return Applied(changed=False)
        for attempt in (1, 2, 3):
            live = await self.find(kind_of(wanted), name[2], name[1], owner_uid)
            if live is not None and self._right(live, wanted, want):
                self._known[name] = (want, exact.digest(live))
                return Applied(changed=False, live=live)
            try:
                return Applied(changed=True, live=await self._put_right(live, wanted, want))
            except Conflict:  # someone wrote between our reading and writing: look again
                if attempt == 3:
                    raise
        raise AssertionError("unreachable")

    async def delete(self, kind: Kind, name: str, namespace: str, owner_uid: str) -> bool:
        """Delete an object if it is ours; what is not ours stays, without complaint."""
        live = await self._api.find(kind, name, namespace)
        self.drop((kind.name, namespace, name))
        if live is None or foreign(live, owner_uid, self._home):
            return False
        return await self._api.delete(kind, name, namespace, uid=live["metadata"]["uid"])

    def _right(self, live: Object, wanted: Object, want: bytes) -> bool:
        if exact.excess(live, wanted):
            return False
        known = self._known.get(name_of(wanted))
        if known is not None:
            # The server's spelling may differ from ours (quantities): what came of the same wish last time counts.
            return known == (want, exact.digest(live))
        return (
            exact.includes(live, wanted)
            and not exact.stale_metadata(live, wanted, FIELD_MANAGER)
            and not exact.contested(live, FIELD_MANAGER)
        )

    async def _put_right(self, live: Object | None, wanted: Object, want: bytes) -> Object:
        kind = kind_of(wanted)
        body = wanted
        _, namespace, own_name = name_of(wanted)
        # Somebody has made a copy immutable: only another object can be right again. At home nobody else writes, and
        # what is there is no copy: it is never deleted for this.
        if live is not None and namespace != self._home and live.get("immutable") and not wanted.get("immutable"):
            await self._api.delete(kind, own_name, namespace, uid=live["metadata"]["uid"])
            live = None
        if live is not None:
            if surplus := exact.excess(live, wanted):
                await self._api.replace(kind, exact.without(live, surplus))
            # With the uid the server refuses (Conflict) if the object is another one by now.
            body = wanted | {"metadata": wanted["metadata"] | {"uid": live["metadata"]["uid"]}}
        try:
            result = await self._api.apply(kind, body)
        except NotFound:
            if live is None:
                raise
            raise Conflict(f"{kind.name} {own_name} was deleted meanwhile", status=409) from None
        self._known[name_of(wanted)] = (want, exact.digest(result))
        return result


def secret_data(secret: Object) -> dict[str, bytes]:
    """A Secret's data, decoded."""
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
