"""kopf watches; its handlers only hand what they see to the cache, and wake whom it concerns.

`on.event` handlers keep no state in the cluster: no annotations, no finalizers. There are two sets of watches,
because kopf watches namespaced kinds either everywhere or in named namespaces: the product's own kinds
everywhere, children in the relay namespace alone, where the operator has the right to.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import kopf

from malote_operator.kube.connection import Connection
from malote_operator.kube.kinds import DOMAIN_CLAIM, PLAN, POD, SENDING_DOMAIN, TENANT, Kind
from malote_operator.reconcile.cache import CHILDREN
from malote_operator.reconcile.engine import OURS

See = Callable[[Kind, dict[str, Any], bool], None]
"""Takes in an object of a kind; the flag says that it was deleted."""

OWN_KINDS = (PLAN, TENANT, SENDING_DOMAIN, DOMAIN_CLAIM)
CHILD_KINDS = (*CHILDREN, POD)

_LOGIN_PAUSE = 5.0


async def watch(
    connection: Connection, relay_namespace: str, see: See, stop: asyncio.Event, started: Callable[[], None]
) -> None:
    """Watch everything until `stop` is set. Raises what kopf cannot recover from.

    kopf takes SIGTERM and SIGINT for itself when it starts; `started` is called afterwards, to take them back.
    """
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # When it ends, each kopf ends every task that it does not know, except these.
    spared = asyncio.all_tasks()
    async with asyncio.TaskGroup() as tasks:
        for kinds, namespaces, selector in ((OWN_KINDS, (), ""), (CHILD_KINDS, (relay_namespace,), OURS)):
            registry, settings = _registry(connection, kinds, see), _settings()
            for kind in kinds if selector else ():
                settings.watching.label_selectors[kind.group, kind.version, kind.plural] = selector
            spared.add(tasks.create_task(_operate(registry, settings, namespaces, stop, spared, started)))


async def _operate(
    registry: kopf.OperatorRegistry,
    settings: kopf.OperatorSettings,
    namespaces: tuple[str, ...],
    stop: asyncio.Event,
    spared: set[asyncio.Task[Any]],
    started: Callable[[], None],
) -> None:
    operating = await kopf.spawn_tasks(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
    )
    started()
    try:
        await kopf.run_tasks(operating, ignored=frozenset(spared))
    finally:
        stop.set()


def _registry(connection: Connection, kinds: Iterable[Kind], see: See) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login(connection))
    for kind in kinds:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)(_handler(kind, see))
    return registry


def _handler(kind: Kind, see: See) -> Callable[..., Any]:
    async def seen(event: dict[str, Any], **_: Any) -> None:
        see(kind, dict(event["object"]), event["type"] == "DELETED")

    return seen


def _login(connection: Connection) -> Callable[..., Any]:
    last = float("-inf")

    async def login(**_: Any) -> kopf.AiohttpSession:
        # Sessions renew their token by themselves: kopf asks again only when TLS breaks down, and then without a
        # pause of its own.
        nonlocal last
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, last + _LOGIN_PAUSE - now))
        last = asyncio.get_running_loop().time()
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=connection.session())

    return login


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # The server ends a watch after five minutes; one that stays silent longer than bookmarks allow is dead.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.networking.error_backoffs = _Backoffs()
    settings.queueing.error_delays = ()
    return settings


class _Backoffs(Iterable[float]):
    """Pauses without end: an API server that is away for long is waited for, not given up."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1.0, 2.0), itertools.repeat(5.0))
