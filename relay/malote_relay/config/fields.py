"""What every part of the configuration is made of: the struct's form, and what numbers may be."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class ConfigError(ValueError):
    """The configuration cannot be used; the message says where and why. The one in force stays."""


# What numbers may be; `decode` refuses others, naming the field and the bound.
Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
ListeningPort = Annotated[int, Meta(ge=0, le=65_535)]
Text = Annotated[str, Meta(min_length=1)]


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """One subject of the configuration: in JSON with camelCase names, none of them unknown."""
