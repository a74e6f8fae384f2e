"""The relay's process: its command line, signals, and how it ends.

::

    malote-relay --config DIR --spool DIR

On SIGTERM: new sessions read 421, transactions under way finish, deliveries drain for a bounded time, the store is
closed, and the process ends with 0. What was not delivered waits in the spool for the next start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import NoReturn

import uvloop

from malote_relay import logs, memory
from malote_relay.config import ConfigError
from malote_relay.relay import Relay
from malote_relay.reload import fingerprint, load
from malote_relay.store.model import StoreError


async def run(directory: Path, spool: Path, grace: float) -> None:
    """Run a relay until SIGTERM or SIGINT. Raises ConfigError, OSError, StoreError."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    seen = fingerprint(directory)
    relay = Relay(directory, spool, load(directory), seen, grace)
    logs.gather(loop)
    try:
        await relay.start()
        async with memory.looked_after():
            await stopping.wait()
        await relay.stop()
    finally:
        logs.gather(None)


def main() -> None:
    """The command `malote-relay`."""
    options = _options()
    logs.configure(options.log_format)
    try:
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(options.config, options.spool, options.grace))
    except (ConfigError, StoreError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="malote-relay", description="The SMTP relay of one tenant: takes, signs, holds and delivers mail."
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="DIR", help="holds config/relay.json, keys/ and tls/"
    )
    parser.add_argument("--spool", type=Path, required=True, metavar="DIR", help="where accepted mail is kept")
    parser.add_argument("--log-format", choices=logs.FORMATS, default="json", help="json (default) or console")
    parser.add_argument(
        "--grace",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="for clients, and again for deliveries, to finish at the end (default %(default)s)",
    )
    return parser.parse_args()


def _fail(words: str) -> NoReturn:
    print(f"malote-relay: {words}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
