"""The hosts as processes of their own, told what to do over HTTP."""

import argparse
import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import aiosmtplib
import dns.asyncresolver
import dns.resolver
import pytest

from malote_dev.mailworld.commands import register
from malote_dev.mailworld.control import message_from_json

PROGRAM = """
import argparse, sys
from malote_dev.mailworld.commands import register
parser = argparse.ArgumentParser()
register(parser.add_subparsers(required=True))
arguments = parser.parse_args()
sys.exit(arguments.run(arguments))
"""


@dataclass
class Running:
    """A host's process: where it listens, and its control."""

    address: str
    port: int
    http: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        async with self.http.request(method, path, json=body) as response:
            text = await response.text()
            assert response.status == expect, text
            return await response.json() if response.status == 200 else text


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *arguments, "--control", "127.0.0.1:0", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        said = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        match = re.fullmatch(r"listening on ([\d.]+):(\d+), control on ([\d.]+:\d+)\n", said)
        assert match, said
        async with aiohttp.ClientSession(f"http://{match[3]}") as http:
            await Running(match[1], int(match[2]), http).call("GET", "/healthz")
            yield Running(match[1], int(match[2]), http)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def send(host: Running, recipient: str, sender: str = "ana@acme.example") -> None:
    async with aiosmtplib.SMTP(hostname=host.address, port=host.port, start_tls=False, timeout=30) as smtp:
        await smtp.sendmail(sender, [recipient], b"Subject: \xc3\xa9\r\n\r\nhi\r\n")


async def test_a_mail_host_shows_its_mail_and_takes_a_behaviour() -> None:
    async with running("mx", "--listen", "127.0.0.1:0", "--hostname", "mx.dest.example") as host:
        await send(host, "bob@dest.example")
        (message,) = await host.call("GET", "/messages?wait=1&timeout=30")
        assert message_from_json(message).content == b"Subject: \xc3\xa9\r\n\r\nhi\r\n"
        assert "1 of 2 messages" in await host.call("GET", "/messages?wait=2&timeout=0.1", expect=504)

        wish = {"recipients": {"Eve@dest.example": {"action": "refuse", "reply": "550 5.2.1 Gone"}}, "tls": "none"}
        await host.call("PUT", "/behaviour", wish)
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused, match=r"5\.2\.1 Gone"):
            await send(host, "eve@dest.example")
        assert (await host.call("GET", "/behaviour"))["tls"] == "none"
        assert (await host.call("GET", "/commands"))[-1]["reply"] == "550 5.2.1 Gone"
        await host.call("DELETE", "/messages")
        assert await host.call("GET", "/messages") == []


async def test_a_wrong_wish_is_refused_with_what_is_wrong() -> None:
    async with running("mx", "--listen", "127.0.0.1:0", "--behaviour", "refuse") as host:
        assert "explode" in await host.call("PUT", "/behaviour", {"host": {"action": "explode"}}, expect=400)
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
            await send(host, "bob@dest.example")


async def test_a_mailbox_provider_is_told_its_mailboxes_and_mode() -> None:
    async with running("mailboxes", "--listen", "127.0.0.1:0", "--mailbox", "ana@acme.example") as host:
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
            await send(host, "bea@acme.example", sender="")
        await host.call("PUT", "/mailboxes", {"mailboxes": ["bea@acme.example"]})
        await send(host, "bea@acme.example", sender="")
        assert [probe["reply"][:3] for probe in await host.call("GET", "/probes")] == ["550", "250"]
        await host.call("PUT", "/mailboxes", {"mode": "unreachable"})
        with pytest.raises(aiosmtplib.SMTPConnectError):
            await send(host, "bea@acme.example")


async def test_a_dns_server_is_told_its_records_and_failures() -> None:
    async with running("dns", "--listen", "127.0.0.1:0", "--zone", "acme.example") as host:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.cache = [host.address], host.port, None
        await host.call("PUT", "/zones", ["dest.example"])
        await host.call("PUT", "/records", [{"name": "dest.example", "type": "MX", "values": ["10 mx.dest.example"]}])
        assert [rdata.to_text() for rdata in await resolver.resolve("dest.example", "MX")] == ["10 mx.dest.example."]
        assert (await host.call("GET", "/queries"))[-1]["name"] == "dest.example"
        await host.call("PUT", "/failures", {"dest.example": "SERVFAIL"})
        with pytest.raises(dns.resolver.NoNameservers):
            await resolver.resolve("dest.example", "MX")
        await host.call("PUT", "/failures", {"dest.example": None})
        await host.call("PUT", "/records", [{"name": "dest.example", "type": "MX"}])
        with pytest.raises(dns.resolver.NoAnswer):
            await resolver.resolve("dest.example", "MX")
        wrong = [{"name": "dest.example", "type": "A", "values": ["x"]}]
        assert "dest.example A 'x'" in await host.call("PUT", "/records", wrong, expect=400)


@pytest.mark.parametrize("arguments", [["mx", "--listen", "2525"], ["mx", "--behaviour", "explode"]])
def test_a_wrong_argument_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(arguments)
    assert ": write A" in capsys.readouterr().err


def test_name_servers_need_an_address_that_can_be_reached(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    arguments = parser.parse_args(["dns", "--listen", "0.0.0.0:0"])
    assert arguments.run(arguments) == 2
    assert "--advertise" in capsys.readouterr().err


def test_the_commands_need_no_library_that_only_developers_have() -> None:
    program = (
        "import sys, malote_dev.mailworld.commands;"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'authheaders', 'spf', 'dkim', 'pytest'})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
