"""Is a live object exactly what is wanted? Pure comparison, helped by the API server's own book-keeping.

Server-side apply makes the fields we name right and leaves every other field alone: a container that somebody
added to a pod template, or a key in a Secret, would stay. `metadata.managedFields` names every field that
anyone ever set (defaults of the server are nobody's), so a field that is managed and not wanted is *excess*
and is taken out again. Metadata and status are not guarded: labels and annotations of other tools may stay.

Format: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and `FieldsV1` of the API reference.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import msgspec

Object = dict[str, Any]
Fields = dict[str, Any]
"""A FieldsV1 tree. Names: `f:FIELD`, `k:{KEYS}` (item of a list of maps), `v:VALUE` (item of a set), `i:INDEX`;
`.` is the node itself. A leaf stands for all that is below it (atomic lists and maps)."""

_UNGUARDED = frozenset({"f:metadata", "f:status", "f:apiVersion", "f:kind"})
_TOLERATED = (
    ("f:spec", "f:template", "f:metadata", "f:annotations"),
    ("f:spec", "f:loadBalancerClass"),
    ("f:spec", "f:loadBalancerIP"),
)
"""`kubectl rollout restart` works by an annotation of the template: taking it out would restart once more. Clusters'
load balancers write the class (which cannot be changed: a Service without it is refused) and the address."""
_VOLATILE = frozenset({"resourceVersion", "managedFields", "generation", "creationTimestamp", "selfLink"})


def digest(obj: Object) -> bytes:
    """A short digest of everything in an object that is not status or the server's own book-keeping."""
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if key not in _VOLATILE}
    content = {key: value for key, value in obj.items() if key != "status"} | {"metadata": metadata}
    return hashlib.blake2b(msgspec.json.encode(content, order="sorted"), digest_size=16).digest()


def includes(live: Any, wanted: Any) -> bool:
    """Whether every value in `wanted` is in `live`; what `live` has besides is not looked at."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(key in live and includes(live[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(includes(a, b) for a, b in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)


def excess(live: Object, wanted: Object) -> Fields:
    """The fields of `live` that somebody set, that are guarded, and that `wanted` does not have."""
    found: Fields = {}
    for entry in live.get("metadata", {}).get("managedFields", ()):
        if entry.get("subresource"):
            continue
        fields = {name: tree for name, tree in entry.get("fieldsV1", {}).items() if name not in _UNGUARDED}
        _join(found, _missing(fields, wanted, ()))
    return found


def without(live: Object, fields: Fields) -> Object:
    """A copy of `live` that lacks `fields` (from `excess`)."""
    result = copy.deepcopy(live)
    _remove(result, fields)
    return result


def stale_metadata(live: Object, wanted: Object, manager: str) -> bool:
    """Whether labels or annotations that `manager` applied earlier are no longer wanted."""
    for entry in live.get("metadata", {}).get("managedFields", ()):
        if entry.get("manager") != manager or entry.get("operation") != "Apply" or entry.get("subresource"):
            continue
        metadata = entry.get("fieldsV1", {}).get("f:metadata", {})
        for part in ("labels", "annotations"):
            names = {name[2:] for name in metadata.get(f"f:{part}", {}) if name.startswith("f:")}
            if names - set(wanted.get("metadata", {}).get(part, {})):
                return True
    return False


def contested(live: Object, manager: str) -> bool:
    """Whether others set guarded fields that `manager` does not hold: applying would take them back."""
    ours: Fields = {}
    theirs: list[Fields] = []
    for entry in live.get("metadata", {}).get("managedFields", ()):
        if entry.get("subresource"):
            continue
        fields = {name: tree for name, tree in entry.get("fieldsV1", {}).items() if name not in _UNGUARDED}
        if entry.get("manager") == manager:
            _union(ours, fields)
        else:
            theirs.append(fields)
    return any(_beyond(fields, ours, ()) for fields in theirs)


def has_manager(live: Object, manager: str) -> bool:
    """Whether `manager` has ever written the object."""
    return any(entry.get("manager") == manager for entry in live.get("metadata", {}).get("managedFields", ()))


def _missing(fields: Fields, wanted: Any, path: tuple[str, ...]) -> Fields:
    result: Fields = {}
    for name, below in fields.items():
        here = (*path, name)
        if name == "." or here in _TOLERATED:
            continue
        present, value = _select(wanted, name)
        if not present:
            result[name] = {}
        elif below and value is not None and (deeper := _missing(below, value, here)):
            result[name] = deeper
    return result


def _union(into: Fields, more: Fields) -> None:
    for name, below in more.items():
        _union(into.setdefault(name, {}), below)


def _beyond(fields: Fields, held: Fields, path: tuple[str, ...]) -> bool:
    return any(
        name != "."
        and (*path, name) not in _TOLERATED
        and (name not in held or _beyond(below, held[name], (*path, name)))
        for name, below in fields.items()
    )


def _select(container: Any, name: str) -> tuple[bool, Any]:
    """What `name` of a FieldsV1 tree stands for in `container`."""
    sort, _, rest = name.partition(":")
    if sort == "f":
        return (True, container[rest]) if isinstance(container, dict) and rest in container else (False, None)
    if not isinstance(container, list):
        return False, None
    index = _index(container, sort, rest)
    return (False, None) if index is None else (True, container[index])


def _index(container: list[Any], sort: str, rest: str) -> int | None:
    key = json.loads(rest)
    if sort == "i":
        return key if key < len(container) else None
    for index, item in enumerate(container):
        if sort == "v" and item == key:
            return index
        # Keys with a default (a port's protocol) may be left out by who wrote the object.
        if sort == "k" and isinstance(item, dict) and all(item.get(k, v) == v for k, v in key.items()):
            return index
    return None


def _join(into: Fields, more: Fields) -> None:
    """Union of what is to go: an empty tree says that all of it goes."""
    for name, below in more.items():
        if name not in into:
            into[name] = below
        elif not into[name] or not below:
            into[name] = {}
        else:
            _join(into[name], below)


def _remove(container: Any, fields: Fields) -> None:
    doomed: list[int] = []
    for name, below in fields.items():
        sort, _, rest = name.partition(":")
        present, value = _select(container, name)
        if not present:
            continue
        if below:
            _remove(value, below)
        elif sort == "f":
            del container[rest]
        elif (index := _index(container, sort, rest)) is not None:
            doomed.append(index)
    for index in sorted(doomed, reverse=True):
        del container[index]
