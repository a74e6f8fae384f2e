"""A container's environment variables, put together and expanded as the kubelet does it.

Pure: what is looked up in the cluster (Secrets, ConfigMaps) comes in as functions.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Object = dict[str, Any]
Lookup = Callable[[str, str], Awaitable[Object | None]]
"""``await lookup(kind, name)``: a Secret or ConfigMap of the pod's namespace, None where there is none."""

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_QUANTITY = re.compile(r"([0-9.]+)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_UNITS = {"": 1, "m": 0.001, "k": 10**3, "Ki": 2**10, "M": 10**6, "Mi": 2**20, "G": 10**9, "Gi": 2**30,
          "T": 10**12, "Ti": 2**40}  # fmt: skip


class ConfigError(Exception):
    """A container cannot be created as its spec says; the message is the kubelet's (CreateContainerConfigError)."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by the variable's value; ``$$`` is one dollar, an unknown name stays as it is written."""

    def value(found: re.Match[str]) -> str:
        if found.group(1) == "$":
            return "$"
        return variables.get(found.group(2), found.group())

    return _REFERENCE.sub(value, text)


def field_value(pod: Object, path: str) -> str:
    """What a ``fieldRef`` gives: metadata, spec.nodeName, spec.serviceAccountName, status.podIP and their kin."""
    metadata = pod["metadata"]
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path):
        return str((metadata.get(found.group(1)) or {}).get(found.group(2), ""))
    if path in {"metadata.labels", "metadata.annotations"}:
        entries = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{name}="{_quoted(value)}"' for name, value in sorted(entries.items()))
    if path in {"metadata.name", "metadata.namespace", "metadata.uid"}:
        return str(metadata[path.removeprefix("metadata.")])
    if path in {"spec.nodeName", "spec.serviceAccountName"}:
        return str(pod["spec"].get(path.removeprefix("spec."), ""))
    if path in {"status.podIP", "status.hostIP"}:
        return str(pod["status"].get(path.removeprefix("status."), ""))
    if path in {"status.podIPs", "status.hostIPs"}:
        return ",".join(entry["ip"] for entry in pod["status"].get(path.removeprefix("status."), []))
    raise ConfigError(f"unsupported fieldPath: {path}")


def resource_value(container: Object, reference: Object, capacity: Mapping[str, str]) -> str:
    """What a ``resourceFieldRef`` gives: a request or limit (the node's capacity where no limit is set)."""
    kind, _, name = str(reference["resource"]).partition(".")
    declared = (container.get("resources") or {}).get(kind) or {}
    amount = declared.get(name) or (capacity.get(name, "0") if kind == "limits" else "0")
    divisor = str(reference.get("divisor") or "1")
    # The kubelet rounds up to whole units.
    return str(-int(-quantity(str(amount)) // quantity("1" if divisor == "0" else divisor)))


def quantity(text: str) -> float:
    """A Kubernetes quantity such as ``500m`` or ``1Gi`` as a number."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is no quantity")
    return float(found.group(1)) * _UNITS[found.group(2) or ""]


async def container_environment(
    pod: Object, container: Object, base: Mapping[str, str], capacity: Mapping[str, str], lookup: Lookup
) -> dict[str, str]:
    """*base*, then ``envFrom``, then ``env`` in order, each value expanded with those before it.

    Raises ConfigError where a Secret, ConfigMap or key that is not optional does not exist.
    """
    variables = dict(base)
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix", "")
        for kind, name in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
            if (reference := source.get(name)) and (found := await _referenced(kind, reference, lookup)):
                variables.update({prefix + key: value for key, value in data_of(found).items()})
    for entry in container.get("env") or ():
        if "valueFrom" not in entry:
            variables[entry["name"]] = expand(entry.get("value") or "", variables)
            continue
        value = await _value_from(pod, container, entry["valueFrom"], capacity, lookup)
        if value is not None:
            variables[entry["name"]] = value
    return variables


async def _value_from(
    pod: Object, container: Object, source: Object, capacity: Mapping[str, str], lookup: Lookup
) -> str | None:
    if reference := source.get("fieldRef"):
        return field_value(pod, reference["fieldPath"])
    if reference := source.get("resourceFieldRef"):
        return resource_value(container, reference, capacity)
    for kind, name in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
        if reference := source.get(name):
            found = await _referenced(kind, reference, lookup)
            if found is None:
                return None
            data = data_of(found)
            if reference["key"] in data:
                return data[reference["key"]]
            if reference.get("optional"):
                return None
            where = f"{pod['metadata']['namespace']}/{reference['name']}"
            raise ConfigError(f"couldn't find key {reference['key']} in {kind} {where}")
    raise ConfigError(f"unsupported valueFrom: {', '.join(source)}")


async def _referenced(kind: str, reference: Object, lookup: Lookup) -> Object | None:
    found = await lookup(kind, reference["name"])
    if found is None and not reference.get("optional"):
        raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found')
    return found


def data_of(item: Object) -> dict[str, str]:
    """The text entries of a Secret (decoded) or ConfigMap."""
    data = item.get("data") or {}
    if item.get("kind") == "Secret":
        return {key: base64.b64decode(value).decode("utf-8", "surrogateescape") for key, value in data.items()}
    return dict(data)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
