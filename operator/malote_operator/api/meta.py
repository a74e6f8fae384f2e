"""What every kind has in common: object metadata, references, conditions (Kubernetes API conventions)."""

from __future__ import annotations

import datetime as dt
import enum

import msgspec


class Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A part of an object. Fields the operator does not know are left alone (a newer API may have them)."""


class OwnerReference(Struct, frozen=True, kw_only=True):
    """`metadata.ownerReferences[]`."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class Metadata(Struct, frozen=True, kw_only=True):
    """The parts of `metadata` the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: dt.datetime | None = None
    deletion_timestamp: dt.datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()


class LocalReference(Struct, frozen=True, kw_only=True):
    """A reference by name to an object of a kind and scope that are clear from the field."""

    name: str


class ConditionStatus(enum.StrEnum):
    """The three values of a condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """`status.conditions[]` as in metav1.Condition."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: dt.datetime
