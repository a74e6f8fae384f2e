"""The typed models and the CRDs say the same: names, types, enums, defaults, what is required."""

from __future__ import annotations

import datetime as dt
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest
import yaml

from malote_operator.api import GROUP, VERSION
from malote_operator.api.domainclaim import DomainClaim
from malote_operator.api.plan import Plan, PlanSpec
from malote_operator.api.sendingdomain import SendingDomain
from malote_operator.api.tenant import Tenant

CRDS = Path(__file__).parents[4] / "crds"
KINDS = {
    "plans": Plan,
    "tenants": Tenant,
    "sendingdomains": SendingDomain,
    "domainclaims": DomainClaim,
}


def fields(model: Any) -> dict[str, msgspec.structs.FieldInfo]:
    """A struct's fields by the names they have in YAML."""
    return {field.encode_name: field for field in msgspec.structs.fields(model)}


def crd(plural: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    return read


def schema(plural: str) -> dict[str, Any]:
    (version,) = crd(plural)["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def differences(model: type[msgspec.Struct], described: dict[str, Any], path: str) -> Iterator[str]:
    """Where the struct and the object schema disagree."""
    known = fields(model)
    properties = described.get("properties", {})
    if set(known) != set(properties):
        yield f"{path}: fields differ: {sorted(set(known) ^ set(properties))}"
    required = {name for name, field in known.items() if field.required}
    # What the server requires of a status is stricter than what the operator insists on when it reads one.
    if required - set(described.get("required", ())) or (
        ".status" not in path and required != set(described.get("required", ()))
    ):
        yield f"{path}: required differ: {sorted(required)} {sorted(described.get('required', ()))}"
    for name in set(known) & set(properties):
        yield from _field(known[name], properties[name], f"{path}.{name}")


def _field(field: msgspec.structs.FieldInfo, described: dict[str, Any], path: str) -> Iterator[str]:
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if "default" in described:
        if default is msgspec.NODEFAULT:
            yield f"{path}: a default in the CRD only"
        elif msgspec.to_builtins(default) != described["default"]:
            yield f"{path}: default {default!r} against {described['default']!r}"
    elif isinstance(default, (bool, int)) or (isinstance(default, str) and default):
        yield f"{path}: default {default!r} in the model only"
    yield from _type(field.type, described, path)


def _type(hint: Any, described: dict[str, Any], path: str) -> Iterator[str]:
    if get_origin(hint) in {Union, types.UnionType}:
        (hint,) = [one for one in get_args(hint) if one is not types.NoneType]
    kind = described.get("type")
    if get_origin(hint) is tuple:
        if kind != "array":
            yield f"{path}: a tuple against {kind}"
        else:
            yield from _type(get_args(hint)[0], described["items"], f"{path}[]")
    elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        if kind != "object":
            yield f"{path}: an object against {kind}"
        else:
            yield from differences(hint, described, path)
    elif isinstance(hint, type) and issubclass(hint, str) and hasattr(hint, "__members__"):
        if {one.value for one in hint} != set(described.get("enum", ())):  # type: ignore[attr-defined] # an enum
            yield f"{path}: enum differs"
    else:
        wanted = {
            str: ("string", None),
            int: ("integer", None),
            bool: ("boolean", None),
            dt.datetime: ("string", "date-time"),
            dt.date: ("string", "date"),
        }.get(hint, ("object", None))
        if kind != wanted[0] or (wanted[1] and described.get("format") != wanted[1]):
            yield f"{path}: {hint} against {kind} {described.get('format')}"
        if hint is str and "enum" in described and path not in {"SendingDomain.status.records[].type"}:
            yield f"{path}: an enum in the CRD only"


@pytest.mark.parametrize("plural", KINDS)
def test_models_and_crds_agree(plural: str) -> None:
    model, described = KINDS[plural], schema(plural)
    parts = {name: field.type for name, field in fields(model).items()}
    assert set(parts) == set(described["properties"]) - {"apiVersion", "kind"}
    found = [
        difference
        for part in sorted(set(parts) - {"metadata"})
        for difference in differences(parts[part], described["properties"][part], f"{model.__name__}.{part}")
    ]
    assert found == []


@pytest.mark.parametrize("plural", KINDS)
def test_every_field_is_described(plural: str) -> None:
    def undescribed(described: dict[str, Any], path: str) -> Iterator[str]:
        if not described.get("description") and path != "metadata":
            yield path
        for name, one in described.get("properties", {}).items():
            yield from undescribed(one, f"{path}.{name}".lstrip("."))
        for inner in ("items", "additionalProperties"):
            if inner in described:
                yield from undescribed(described[inner], f"{path}[]")

    assert list(undescribed(schema(plural), "")) == []


@pytest.mark.parametrize("plural", KINDS)
def test_crds_have_what_the_interfaces_promise(plural: str) -> None:
    body = crd(plural)
    assert (body["spec"]["group"], body["spec"]["versions"][0]["name"]) == (GROUP, VERSION)
    assert body["metadata"]["name"] == f"{plural}.{GROUP}"
    assert body["spec"]["names"]["categories"] == ["malote"]
    assert body["spec"]["scope"] == ("Namespaced" if plural == "sendingdomains" else "Cluster")
    if plural != "domainclaims":
        assert body["spec"]["versions"][0]["subresources"] == {"status": {}}
        status = schema(plural)["properties"]["status"]["properties"]
        assert "observedGeneration" in status
        assert status["conditions"]["x-kubernetes-list-map-keys"] == ["type"]


def test_plans_and_tenants_say_the_same_way_how_mail_leaves() -> None:
    of_plans, of_tenants = (
        schema(plural)["properties"]["spec"]["properties"]["egress"] for plural in ("plans", "tenants")
    )
    assert of_plans["properties"] == of_tenants["properties"]


def test_the_walk_sees_a_difference() -> None:
    """The test above would be worthless if it could not fail."""
    changes: tuple[Callable[[dict[str, Any]], object], ...] = (
        lambda spec: spec["properties"].pop("displayName"),
        lambda spec: spec["properties"]["tolerancePercent"].update(default=10),
        lambda spec: spec["properties"]["tolerancePercent"].pop("default"),
        lambda spec: spec["properties"]["overLimitReply"]["enum"].append("Never"),
        lambda spec: spec["properties"]["maxDomains"].update(type="string"),
        lambda spec: spec["required"].clear(),
        lambda spec: spec["properties"]["support"]["properties"]["channels"]["items"]["properties"].pop("type"),
    )
    for change in changes:
        spec = schema("plans")["properties"]["spec"]
        change(spec)
        assert list(differences(PlanSpec, spec, "Plan.spec"))
