"""Events as the API server takes them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from malote_operator.kube.events import Events
from malote_operator.kube.kinds import Kind

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class Server:
    """Keeps what is made."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    async def create(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        self.made.append(body)
        return body


async def recorded(name: str = "acme", note: str = "said") -> dict[str, Any]:
    server = Server()
    events = Events(server, "me")  # type: ignore[arg-type]  # only what is used
    about = {
        "apiVersion": "malote.dev/v1alpha1",
        "kind": "SendingDomain",
        "metadata": {"name": name, "namespace": "n"},
    }
    await events.record(about, reason="R", note=note, action="A", warning=False)
    (made,) = server.made
    return made


@pytest.mark.parametrize("note", ["x" * 2000, "é" * 600, "x" + "é" * 600, "…" * 500])
async def test_a_long_note_is_cut_to_the_octets_that_are_allowed(note: str) -> None:
    cut = (await recorded(note=note))["note"]
    assert len(cut.encode()) <= 1024
    assert len(cut.encode()) > 1018
    assert cut.endswith("…")
    assert note.startswith(cut[:-1])


@pytest.mark.parametrize("note", ["", "x" * 1024, "é" * 512])
async def test_a_note_that_fits_stays_as_it_is(note: str) -> None:
    assert (await recorded(note=note))["note"] == note


@pytest.mark.parametrize("name", ["acme", "b" * 253, "b" * 199 + ".com", "b" * 198 + "-.com", "b" * 199 + "-com"])
async def test_the_name_is_one_that_the_api_server_takes(name: str) -> None:
    made = (await recorded(name))["metadata"]["name"]
    assert SUBDOMAIN.fullmatch(made)
    assert len(made) <= 253
