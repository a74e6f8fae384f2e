"""An HTTP control of the made-up hosts, for when they run as processes of their own (in pods).

It has no protection and belongs on an address that only the test can reach. Bodies are JSON; a body that is wrong
is answered with 400 and a text that says why.

Mail hosts:

* ``GET /messages[?wait=COUNT&timeout=SECONDS]`` what was received, the content in base64; 504 when too few came
* ``DELETE /messages`` forget messages, commands and counts
* ``GET /commands`` every step of every session with its reply
* ``GET|PUT /behaviour`` ``{"host": {…}, "recipients": {ADDRESS: {…}}, "tls": MODE}``; see `behaviour.Behaviour`

A mailbox provider besides: ``GET|PUT /mailboxes`` ``{"mailboxes": […], "mode": MODE}``, ``GET /probes``.

The DNS server: ``GET /queries``, ``PUT /zones`` ``[NAME, …]``, ``PUT /records``
``[{"name": …, "type": …, "values": […], "ttl": 5}, …]`` (no values: delete), ``PUT /failures`` ``{NAME: HOW|null}``.

All: ``GET /healthz``.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from malote_dev.mailworld.behaviour import ACCEPT, Behaviour, TlsMode
from malote_dev.mailworld.dns import DnsServer
from malote_dev.mailworld.mailboxes import MailboxProvider, Mode
from malote_dev.mailworld.mx import SinkMx
from malote_dev.mailworld.received import Message
from malote_dev.mailworld.records import Failure

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class MxSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A mail host's behaviour as the control reads and writes it; what is absent is the default."""

    host: Behaviour = ACCEPT
    recipients: dict[str, Behaviour] = {}
    tls: TlsMode = TlsMode.GOOD


class MailboxSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A provider's mailboxes and mode; what is absent stays as it is."""

    mailboxes: list[str] | None = None
    mode: Mode | None = None


class Record(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The values of one name and type; without values the record goes."""

    name: str
    type: str
    values: list[str] = []
    ttl: int = 5


def mx_control(host: SinkMx) -> web.Application:
    """The control of a mail host, and of its mailboxes when it is a provider."""

    async def messages(request: web.Request) -> web.Response:
        try:
            count, seconds = int(request.query.get("wait", 0)), float(request.query.get("timeout", 10))
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"wait and timeout are numbers: {error}") from error
        try:
            await host.wait_for(count, seconds)
        except TimeoutError as error:
            raise web.HTTPGatewayTimeout(text=str(error)) from error
        return _json([message_to_json(message) for message in host.messages])

    async def forget(request: web.Request) -> web.Response:
        host.clear()
        return _json({})

    async def commands(request: web.Request) -> web.Response:
        return _json([dataclasses.asdict(step) for step in host.commands])

    async def behaviour(request: web.Request) -> web.Response:
        return _json(MxSettings(host=host.behaviour, recipients=host.recipients, tls=host.tls))

    async def behave(request: web.Request) -> web.Response:
        settings = await _body(request, MxSettings)
        host.behaviour, host.tls = settings.host, settings.tls
        host.recipients = {address.lower(): each for address, each in settings.recipients.items()}
        return await behaviour(request)

    app = _application({"GET /messages": messages, "DELETE /messages": forget, "GET /commands": commands})
    app.add_routes([web.get("/behaviour", behaviour), web.put("/behaviour", behave)])
    if isinstance(host, MailboxProvider):
        _add_mailboxes(app, host)
    return app


def _add_mailboxes(app: web.Application, host: MailboxProvider) -> None:
    async def mailboxes(request: web.Request) -> web.Response:
        return _json(MailboxSettings(mailboxes=sorted(host.mailboxes), mode=host.mode))

    async def change(request: web.Request) -> web.Response:
        settings = await _body(request, MailboxSettings)
        if settings.mailboxes is not None:
            host.mailboxes = set(settings.mailboxes)
        if settings.mode is not None:
            await host.set_mode(settings.mode)
        return await mailboxes(request)

    async def probes(request: web.Request) -> web.Response:
        return _json([dataclasses.asdict(probe) for probe in host.probes])

    app.add_routes(
        [web.get("/mailboxes", mailboxes), web.put("/mailboxes", change), web.get("/probes", probes)],
    )


def dns_control(server: DnsServer) -> web.Application:
    """The control of a DNS server."""

    async def queries(request: web.Request) -> web.Response:
        return _json([dataclasses.asdict(query) for query in server.queries])

    async def zones(request: web.Request) -> web.Response:
        for zone in await _body(request, list[str]):
            server.add_zone(zone)
        return _json({})

    async def records(request: web.Request) -> web.Response:
        for record in await _body(request, list[Record]):
            try:
                server.set(record.name, record.type, *record.values, ttl=record.ttl)
            except ValueError as error:
                raise web.HTTPBadRequest(text=str(error)) from error
        return _json({})

    async def failures(request: web.Request) -> web.Response:
        for name, how in (await _body(request, dict[str, Failure | None])).items():
            server.fail(name, how)
        return _json({})

    return _application(
        {"GET /queries": queries, "PUT /zones": zones, "PUT /records": records, "PUT /failures": failures}
    )


def message_to_json(message: Message) -> dict[str, Any]:
    """A message for the control's answers: the content in base64."""
    return dataclasses.asdict(message) | {"content": base64.b64encode(message.content).decode()}


def message_from_json(fields: dict[str, Any]) -> Message:
    """The message that a control's answer describes."""
    return msgspec.convert(fields, Message)


def _application(handlers: dict[str, Handler]) -> web.Application:
    async def healthy(request: web.Request) -> web.Response:
        return _json({})

    app = web.Application(client_max_size=64 * 1024 * 1024)
    for route, handler in ({"GET /healthz": healthy} | handlers).items():
        method, _, path = route.partition(" ")
        app.router.add_route(method, path, handler)
    return app


async def _body(request: web.Request, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError as error:
        raise web.HTTPBadRequest(text=str(error)) from error


def _json(content: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")
