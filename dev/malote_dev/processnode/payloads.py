"""What a pod's volume of files holds: Secret, ConfigMap, downward API and projected volumes, from the API's objects.

Pure but for the look-ups handed in. ``items``, ``optional``, ``mode`` and ``defaultMode`` mean what they mean to the
kubelet, and so do the words of the errors.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from malote_dev.processnode.atomicfiles import FileContent
from malote_dev.processnode.environment import ConfigError, Lookup, field_value, resource_value

Object = dict[str, Any]
TokenSource = Callable[[str, int], Awaitable[str]]
"""``await token(audience, seconds)``: a service account token bound to the pod ("" the API server's own audience)."""

DEFAULT_MODE = 0o644
DEFAULT_TOKEN_SECONDS = 3600
FILE_VOLUMES = ("secret", "configMap", "downwardAPI", "projected")


class MountError(Exception):
    """A volume cannot be set up yet; the message is the kubelet's (FailedMount)."""


@dataclass(frozen=True)
class Sources:
    """What volumes are made from: look-ups in the pod's namespace, and tokens for its service account."""

    lookup: Lookup
    token: TokenSource


def references(volume: Object) -> set[tuple[str, str]]:
    """The (kind, name) of each Secret and ConfigMap that a volume shows."""
    found = set()
    for source in _sources(volume):
        if secret := source.get("secret"):
            found.add(("Secret", secret.get("secretName") or secret.get("name")))
        if config := source.get("configMap"):
            found.add(("ConfigMap", config["name"]))
    return found


def token_seconds(volume: Object) -> int | None:
    """How long the shortest-lived token in a volume is asked to live; None where there is none."""
    seconds = [
        int(source["serviceAccountToken"].get("expirationSeconds") or DEFAULT_TOKEN_SECONDS)
        for source in _sources(volume)
        if "serviceAccountToken" in source
    ]
    return min(seconds, default=None)


async def volume_files(pod: Object, volume: Object, sources: Sources) -> dict[str, FileContent]:
    """The files of a volume of one of `FILE_VOLUMES`. Raises MountError."""
    kind = next(kind for kind in FILE_VOLUMES if kind in volume)
    default = int(volume[kind].get("defaultMode", DEFAULT_MODE))
    files: dict[str, FileContent] = {}
    for source in _sources(volume):
        files.update(await _source_files(pod, source, default, sources))
    return files


def _sources(volume: Object) -> Iterable[Object]:
    if "projected" in volume:
        return volume["projected"].get("sources") or []
    return [volume] if any(kind in volume for kind in FILE_VOLUMES) else []


async def _source_files(pod: Object, source: Object, default: int, sources: Sources) -> dict[str, FileContent]:
    if secret := source.get("secret"):
        name = secret.get("secretName") or secret.get("name")
        return await _object_files("Secret", name, secret, default, sources.lookup)
    if config := source.get("configMap"):
        return await _object_files("ConfigMap", config["name"], config, default, sources.lookup)
    if token := source.get("serviceAccountToken"):
        seconds = int(token.get("expirationSeconds") or DEFAULT_TOKEN_SECONDS)
        text = await sources.token(token.get("audience") or "", seconds)
        return {token["path"]: FileContent(text.encode(), default)}
    if downward := source.get("downwardAPI"):
        return {item["path"]: _downward_file(pod, item, default) for item in downward.get("items") or ()}
    raise MountError(f"the process node knows no projection of {', '.join(source)}")


async def _object_files(kind: str, name: str, source: Object, default: int, lookup: Lookup) -> dict[str, FileContent]:
    found = await lookup(kind, name)
    optional = bool(source.get("optional"))
    if found is None:
        if optional:
            return {}
        raise MountError(f'{kind.lower()} "{name}" not found')
    content = binary_data_of(found)
    if not (items := source.get("items")):
        return {key: FileContent(value, default) for key, value in content.items()}
    files = {}
    for item in items:
        if item["key"] in content:
            files[item["path"]] = FileContent(content[item["key"]], int(item.get("mode", default)))
        elif not optional:
            raise MountError(f"references non-existent {kind.lower()} key: {item['key']}")
    return files


def _downward_file(pod: Object, item: Object, default: int) -> FileContent:
    try:
        if reference := item.get("fieldRef"):
            text = field_value(pod, reference["fieldPath"])
        else:
            reference = item["resourceFieldRef"]
            container = next(one for one in pod["spec"]["containers"] if one["name"] == reference["containerName"])
            text = resource_value(container, reference, {})
    except ConfigError as error:
        raise MountError(str(error)) from error
    return FileContent(text.encode(), int(item.get("mode", default)))


def binary_data_of(item: Object) -> dict[str, bytes]:
    """All entries of a Secret or ConfigMap as bytes."""
    data = item.get("data") or {}
    if item.get("kind") == "Secret":
        return {key: base64.b64decode(value) for key, value in data.items()}
    entries = {key: value.encode() for key, value in data.items()}
    return entries | {key: base64.b64decode(value) for key, value in (item.get("binaryData") or {}).items()}
