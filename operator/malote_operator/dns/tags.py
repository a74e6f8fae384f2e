"""Tag lists, ``name=value; name=value`` (RFC 6376 section 3.2): the form of DKIM and DMARC records."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


class TagError(ValueError):
    """Not a tag list: the message says which part, in words for the record's owner."""


def parse(text: str) -> dict[str, str]:
    """The tags in their order; names are case-sensitive, space around names and values does not count.

    Raises TagError for a part without ``=``, an ill-formed name, or a name that stands twice.
    """
    tags: dict[str, str] = {}
    for part in text.split(";"):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or not _NAME.match(name):
            raise TagError(f"“{_short(part.strip())}” is not of the form name=value")
        if name in tags:
            raise TagError(f"the tag {name}= stands twice")
        tags[name] = value.strip()
    return tags


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
