"""`malote-operator --settings FILE`: watches, leads or stands by, and ends cleanly."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog
import uvloop

from . import metrics, observe
from .handlers.watches import watch
from .kube import connection as connections
from .kube.client import Api
from .kube.connection import Connection, ConnectionSettingsError
from .kube.errors import ApiError
from .kube.kinds import DOMAIN_CLAIM, PLAN, SENDING_DOMAIN, TENANT, Kind
from .kube.lease import Leadership
from .mail.transport import Transport
from .mail.welcome import WelcomePostman
from .reconcile.assembly import Operator, assemble
from .reconcile.relaypods import RelayPods
from .settings import Settings, SettingsError, load

log = structlog.get_logger(__name__)

LEASE_NAME = "malote-operator"


def main() -> None:
    """The command. Exit status 2: it was started wrongly; the message says what to correct."""
    parser = argparse.ArgumentParser(prog="malote-operator", description="Keeps Malote's tenants as declared.")
    parser.add_argument("--settings", type=Path, required=True, help="the platform's settings (YAML)")
    parser.add_argument("--verbose", action="store_true", help="log every step")
    arguments = parser.parse_args()
    try:
        settings = load(arguments.settings)
        connection = asyncio.run(connections.find())
    except (SettingsError, ConnectionSettingsError) as error:
        print(f"malote-operator: {error}", file=sys.stderr)
        sys.exit(2)
    set_up_logging(logging.DEBUG if arguments.verbose else logging.INFO)
    uvloop.run(run(settings, connection))


def set_up_logging(level: int) -> None:
    """JSON lines on standard output, those of libraries included."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(),
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)


async def run(settings: Settings, connection: Connection, stop: asyncio.Event | None = None) -> None:
    """Run until SIGTERM or SIGINT (or `stop`), then release the Lease and end."""
    stop = stop or asyncio.Event()
    identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}-{os.getpid()}"
    namespace = os.environ.get("POD_NAMESPACE") or connection.namespace
    async with (
        Api(connection) as api,
        Api(connection, concurrency=1) as lease_api,  # renewals never wait behind other requests
        RelayPods(api, settings.relay_namespace) as pods,
    ):
        transport = Transport(settings.notices, os.environ.get("MALOTE_NOTICES_PASSWORD_FILE", ""))
        postman = WelcomePostman(settings, transport) if settings.notices.host else None
        operator = assemble(settings, api, pods, identity=identity, operator_namespace=namespace, postman=postman)
        web = await observe.serve(os.environ.get("MALOTE_LISTEN", ""), lambda: _not_ready(operator))
        _on_signals(stop)
        log.info("started", server=connection.server, identity=identity, namespace=namespace)
        try:
            if await _wait_for_kinds(api, stop):
                leadership = Leadership(lease_api, namespace=namespace, name=LEASE_NAME, identity=identity)
                await _work(operator, leadership, connection, stop)
        finally:
            await web.cleanup()
            log.info("ended")


async def _work(operator: Operator, leadership: Leadership, connection: Connection, stop: asyncio.Event) -> None:
    """Watch and compete for the Lease side by side; when either ends, both do."""
    context = operator.context

    def see(kind: Kind, obj: dict[str, Any], deleted: bool) -> None:
        context.wake(context.cache.update(kind, obj, deleted=deleted))

    async def held() -> None:
        metrics.LEADER.set(1)
        try:
            await operator.engine.lead()
        finally:
            metrics.LEADER.set(0)

    async def lead() -> None:
        # Without an API server the first listing does not end: a signal to stop must not wait for that.
        first = [asyncio.ensure_future(operator.engine.warm()), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if first[0].done():
                await first[0]
        finally:
            for one in first:
                one.cancel()
        await leadership.run(held, stop)

    async def guarded(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            stop.set()

    metrics.LEADER.set(0)
    watching = watch(connection, context.settings.relay_namespace, see, stop, started=lambda: _on_signals(stop))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(guarded(lead()), name="leadership")
        tasks.create_task(guarded(watching), name="watches")


async def _wait_for_kinds(api: Api, stop: asyncio.Event) -> bool:
    """Wait until the API server knows the product's kinds; False if it is time to stop before that."""
    pause = 1.0
    while not stop.is_set():
        try:
            missing = [
                kind.plural for kind in (PLAN, TENANT, SENDING_DOMAIN, DOMAIN_CLAIM) if not await api.serves(kind)
            ]
        except ApiError as error:
            log.warning("waiting for the API server", error=str(error), seconds=pause)
        else:
            if not missing:
                return True
            log.error(
                "CustomResourceDefinitions are missing: apply crds/ (the Helm chart brings them)",
                missing=missing,
                seconds=pause,
            )
        try:
            async with asyncio.timeout(pause):
                await stop.wait()
        except TimeoutError:
            pause = min(15.0, pause * 1.5)
    return False


def _not_ready(operator: Operator) -> str:
    return "" if operator.context.synced.is_set() else "the first listing has not ended yet"


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
