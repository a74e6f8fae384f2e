"""The made-up hosts as commands: `malote-dev mx`, `malote-dev mailboxes`, `malote-dev dns`.

Each runs until SIGTERM or SIGINT and needs nothing but the relay's and the operator's dependencies, so that it
runs from the product's image, without root (the ports are above 1024).
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from malote_dev.mailworld.behaviour import ACCEPT, TlsMode, parse
from malote_dev.mailworld.control import dns_control, mx_control
from malote_dev.mailworld.dns import DnsServer
from malote_dev.mailworld.mailboxes import MailboxProvider, Mode
from malote_dev.mailworld.mx import SinkMx


class Subparsers(Protocol):
    """What `argparse.ArgumentParser.add_subparsers` gives."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:
        """A new sub-command."""
        ...


def register(subparsers: Subparsers) -> None:
    """Add the commands; each sets `run`, a function from the parsed arguments to the exit code."""
    mx = _host(subparsers, "mx", "a recipient's mail host that behaves as told", "127.0.0.1:2525")
    mx.add_argument("--hostname", default="mx.example", help="the name it greets with and has a certificate for")
    mx.add_argument("--behaviour", default=ACCEPT, type=_behaviour, help="ACTION[@STAGE], for example defer")
    mx.add_argument("--tls", default=TlsMode.GOOD, type=TlsMode, choices=list(TlsMode), help="what STARTTLS does")
    mx.set_defaults(run=_run_mx)

    mailboxes = _host(subparsers, "mailboxes", "a domain's mail host that answers call-outs", "127.0.0.1:2525")
    mailboxes.add_argument("--hostname", default="mx.example", help="the name it greets with")
    mailboxes.add_argument("--mailbox", action="append", default=[], metavar="ADDRESS", help="one that exists")
    mailboxes.add_argument("--mode", default=Mode.NORMAL, type=Mode, choices=list(Mode), help="how it answers")
    mailboxes.set_defaults(run=_run_mailboxes)

    dns = _host(subparsers, "dns", "a DNS server for made-up domains (UDP and TCP)", "127.0.0.1:5353")
    dns.add_argument("--advertise", default="", metavar="ADDRESS", help="the address of its zones' name servers")
    dns.add_argument("--zone", action="append", default=[], metavar="NAME", help="a zone to serve from the start")
    dns.set_defaults(run=_run_dns)


def _host(subparsers: Subparsers, name: str, description: str, listen: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(name, help=description)
    parser.description = description
    parser.add_argument("--listen", default=_address(listen), type=_address, metavar="ADDRESS:PORT")
    parser.add_argument(
        "--control", type=_address, metavar="ADDRESS:PORT", help="HTTP control; see malote_dev.mailworld.control"
    )
    return parser


def _run_mx(arguments: argparse.Namespace) -> int:
    address, port = arguments.listen
    host = SinkMx(address, port, hostname=arguments.hostname, tls=arguments.tls, behaviour=arguments.behaviour)
    return asyncio.run(_serve(host, host.start, mx_control(host), arguments))


def _run_mailboxes(arguments: argparse.Namespace) -> int:
    address, port = arguments.listen
    host = MailboxProvider(arguments.mailbox, address, port, hostname=arguments.hostname)
    return asyncio.run(_serve(host, lambda: host.set_mode(arguments.mode), mx_control(host), arguments))


def _run_dns(arguments: argparse.Namespace) -> int:
    address, port = arguments.listen
    if not arguments.advertise and ipaddress.ip_address(address).is_unspecified:
        print(f"malote-dev dns: name servers cannot have the address {address}: add --advertise", file=sys.stderr)
        return 2
    server = DnsServer(address, port, advertise=arguments.advertise)
    for zone in arguments.zone:
        server.add_zone(zone)
    return asyncio.run(_serve(server, server.start, dns_control(server), arguments))


async def _serve(
    host: SinkMx | DnsServer,
    start: Callable[[], Awaitable[object]],
    control: web.Application,
    arguments: argparse.Namespace,
) -> int:
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    runner = web.AppRunner(control, access_log=None)
    try:
        await start()
        listening = f"listening on {host.address}:{host.port}"
        if arguments.control is not None:
            await runner.setup()
            await web.TCPSite(runner, *arguments.control).start()
            address, port, *_ = runner.addresses[0]
            listening += f", control on {address}:{port}"
        print(listening, flush=True)
        await over.wait()
    finally:
        await runner.cleanup()
        await host.stop()
    return 0


def _address(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    if not address or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: write ADDRESS:PORT, such as 0.0.0.0:2525")
    return address.strip("[]"), int(port)


def _behaviour(text: str) -> object:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
