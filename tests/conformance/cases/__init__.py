"""The cases, one file a subject. Importing this package declares them all."""

from tests.conformance.cases import (
    auth,
    chunking,
    commands,
    content,
    dsn,
    enhanced,
    greeting,
    limits,
    paths,
    pipelining,
    size,
    smtputf8,
    smuggling,
    submission,
    tls,
    transaction,
)

__all__ = [
    "auth",
    "chunking",
    "commands",
    "content",
    "dsn",
    "enhanced",
    "greeting",
    "limits",
    "paths",
    "pipelining",
    "size",
    "smtputf8",
    "smuggling",
    "submission",
    "tls",
    "transaction",
]
