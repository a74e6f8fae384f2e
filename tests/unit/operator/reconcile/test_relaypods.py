"""Looking at relays, and having changed Secrets read at once."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from malote_operator.api.tenant import AccountPaused
from malote_operator.kube.errors import NotFound
from malote_operator.kube.kinds import Kind
from malote_operator.reconcile import relaypods
from malote_operator.reconcile.cache import RelayPod, RelaySet
from malote_operator.reconcile.relaypods import CONFIG_HASH, SECRETS, RelayPods


class Api:
    """Remembers what pods were told."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []
        self.gone = False

    async def merge(self, kind: Kind, name: str, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.gone:
            raise NotFound("gone")
        self.told.append(body["metadata"]["annotations"])
        return body


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
async def pods(api: Api) -> AsyncIterator[RelayPods]:
    async with RelayPods(api, "relays") as one:  # type: ignore[arg-type]  # only merge is used
        yield one


def pod(**more: Any) -> RelayPod:
    return dataclasses.replace(RelayPod(name="acme-relay-0", uid="u", tenant="acme", ready=True), **more)


@pytest.fixture
async def relay(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, Any]]:
    """A relay's /readyz whose answer can be set."""
    state: dict[str, Any] = {"status": 200, "body": {}, "speaks": asyncio.Event(), "asked": 0}
    state["speaks"].set()

    async def readyz(request: web.Request) -> web.StreamResponse:
        state["asked"] += 1
        await state["speaks"].wait()
        response = web.StreamResponse(status=state["status"])
        await response.prepare(request)
        text = json.dumps(state["body"]).encode()
        for piece in (text[:100], text[100:]):
            await response.write(piece)
            await asyncio.sleep(0.01)  # on their way they come apart
        return response

    app = web.Application()
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setattr(relaypods, "OBSERVE_PORT", runner.addresses[0][1])
    yield state
    state["speaks"].set()
    await runner.cleanup()


async def test_it_tells_what_a_relay_has_loaded_even_while_that_is_not_ready(
    pods: RelayPods, relay: dict[str, Any]
) -> None:
    relay["status"] = 503
    relay["body"] = {"ready": False, "configHash": "h", "submissionOpen": True, "configError": "no such key"}
    seen = await pods.observe(RelaySet(1, 0), [pod(address="127.0.0.1", ready=False)])
    assert seen.exists
    assert seen.ready_replicas == 0
    assert (seen.pods[0].config_hash, seen.pods[0].submission_open, seen.pods[0].config_error) == (
        "h",
        True,
        "no such key",
    )


async def test_it_tells_whom_a_relay_has_paused_however_many_there_are(
    pods: RelayPods, relay: dict[str, Any]
) -> None:
    many = [
        {
            "account": f"{number:040}",
            "since": "2027-01-15T08:00:00Z",
            "until": "2027-01-15T14:00:00Z",
            "reason": "x" * 200,
        }
        for number in range(200)
    ]
    relay["body"] = {"ready": True, "configHash": "h", "pausedAccounts": many}
    (seen,) = (await pods.observe(RelaySet(1, 1), [pod(address="127.0.0.1")])).pods
    assert seen.config_hash == "h"
    assert len(seen.paused) == 200
    assert seen.paused[f"{7:040}"] == AccountPaused(
        since=dt.datetime(2027, 1, 15, 8, tzinfo=dt.UTC),
        until=dt.datetime(2027, 1, 15, 14, tzinfo=dt.UTC),
        reason="x" * 200,
    )
    relay["body"] = {"ready": True, "configHash": "h"}
    (seen,) = (await pods.observe(RelaySet(1, 1), [pod(address="127.0.0.1")])).pods
    assert seen.paused == {}


async def test_a_relay_that_does_not_answer_or_answers_nonsense_has_loaded_nothing(
    pods: RelayPods, relay: dict[str, Any]
) -> None:
    relay["body"] = ["nonsense"]
    seen = await pods.observe(RelaySet(2, 2), [pod(address="127.0.0.1"), pod(name="b", address="127.0.0.2")])
    assert [one.config_hash for one in seen.pods] == ["", ""]
    assert seen.ready_replicas == 2


async def test_pods_are_touched_when_secrets_change_and_once_more_for_each_try(pods: RelayPods, api: Api) -> None:
    now = 1000.0
    pods._clock = lambda: now
    await pods.announce([pod()], "hash", "s1", again=False)
    assert api.told == [{CONFIG_HASH: "hash", SECRETS: "s1.0"}]
    told = pod(annotations=((SECRETS, "s1.0"),))
    assert not await pods.announce([told], "hash", "s1", again=False), "it has been told"
    first = pods.retry_delay([told])
    for _ in range(2):
        now += pods.retry_delay([told])
        assert await pods.announce([told], "hash", "s1", again=True)
    assert [one[SECRETS] for one in api.told[1:]] == ["s1.1", "s1.2"], "another value each time: that is the touch"
    assert pods.retry_delay([told]) > first
    pods.settled([told])
    assert pods.retry_delay([told]) == first
    assert await pods.announce([told], "hash2", "s2", again=False)


async def test_a_relay_that_refuses_its_configuration_is_not_touched_with_each_look(
    pods: RelayPods, api: Api
) -> None:
    """The touch is a change of the pod, for which the tenant is looked at once more."""
    now = 1000.0
    pods._clock = lambda: now
    told = pod(annotations=((SECRETS, "s1.0"),))
    for _ in range(600):
        await pods.announce([told], "hash", "s1", again=True)
        assert pods.retry_delay([told]) > 0.0
        now += 0.1
    assert 5 < len(api.told) < 20, "in a minute"
    assert pods.retry_delay([told]) <= relaypods.RETRY_LONGEST
    assert await pods.announce([told], "hash", "s2", again=False), "what is new is said at once"


async def test_pods_that_end_or_are_gone_are_not_touched(pods: RelayPods, api: Api) -> None:
    assert not await pods.announce([pod(terminating=True)], "h", "s", again=False)
    api.gone = True
    assert not await pods.announce([pod()], "h", "s", again=False)
    seen = await pods.observe(RelaySet(1, 0), [pod(terminating=True)])
    assert seen.pods == ()


async def test_a_relay_that_did_not_answer_costs_little_until_it_does(
    pods: RelayPods, relay: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaypods, "_TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    relay["body"] = {"configHash": "h"}
    relay["speaks"].clear()
    one = pod(address="127.0.0.1")
    for _ in range(3):
        (seen,) = (await pods.observe(RelaySet(1, 1), [one])).pods
        assert seen.config_hash == ""
    assert relay["asked"] == 2 + 1 + 1, "twice at first, then once each time"
    relay["speaks"].set()
    monkeypatch.setattr(relaypods, "_SILENT_TIMEOUT", aiohttp.ClientTimeout(total=30.0))
    (seen,) = (await pods.observe(RelaySet(1, 1), [one])).pods
    assert seen.config_hash == "h"
    relay["speaks"].clear()
    await pods.observe(RelaySet(1, 1), [one])
    assert relay["asked"] == 4 + 1 + 2, "it has answered since"
