"""A real Prometheus that scrapes a relay and the operator's metrics, with the labels of the chart's PodMonitors.

The relay's process takes mail and delivers it to mail hosts that accept, put off and refuse; beside it the operator's
metrics are served as the operator serves them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import prometheus_client
import pytest
import pytest_asyncio
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from prometheus_client.metrics import MetricWrapperBase

import malote_operator.metrics
from malote_dev import debian
from malote_dev.mailworld import client
from malote_dev.mailworld.behaviour import parse
from malote_dev.mailworld.certificates import CertificateAuthority
from malote_dev.mailworld.client import Endpoint
from malote_dev.mailworld.dns import DnsServer
from malote_dev.mailworld.mx import SinkMx
from malote_relay import passwords
from malote_relay.config import (
    CERTIFICATE_FILE,
    CERTIFICATE_KEY_FILE,
    CONFIG_FILE,
    KEYS_DIRECTORY,
    Account,
    AccountPause,
    Delivery,
    DkimKey,
    Domain,
    Listen,
    Plan,
    Rehearsal,
    RelayConfig,
    Resolver,
    SenderMode,
    SenderVerification,
    Submission,
    Suppression,
    encode,
)

DASHBOARDS = Path(__file__).parents[3] / "charts/malote/dashboards"
RULES = DASHBOARDS / "alerts.yaml"
TENANT, PASSWORD, HOSTNAME = "acme", "a-password-of-the-tenants", "acme.smtp.example"
LIMIT, TOLERANCE_PERCENT = 60, 20
SCRAPE_SECONDS = 0.5


def program(name: str) -> str:
    """Where a program of Prometheus' is."""
    return str(debian.program(name, "prometheus"))


class Prometheus:
    """A running Prometheus' HTTP API."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer; an error fails the test with Prometheus' words."""
        async with self._http.get(f"/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", f"{parameters}: {answer['error']}"
        return answer["data"]

    async def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        """What a query gives now: labels and value of each series."""
        data = await self.get("query", query=query)
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    async def settled(self, query: str, within: float = 60.0) -> list[tuple[dict[str, str], float]]:
        """What a query gives, waited for until it is something: at least one series with a number."""
        for _ in range(int(within / SCRAPE_SECONDS)):
            found = [(labels, value) for labels, value in await self.values(query) if not math.isnan(value)]
            if found:
                return found
            await asyncio.sleep(SCRAPE_SECONDS)
        raise AssertionError(f"no values after {within:g} s: {query}")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def prometheus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    """Prometheus, scraping a relay under load and the operator's metrics."""
    program("prometheus")
    directory = tmp_path_factory.mktemp("dashboards")
    async with contextlib.AsyncExitStack() as stack:
        relay, endpoint = await stack.enter_async_context(relay_at_work(directory))
        operator = stack.enter_context(operator_at_work())
        address = await stack.enter_async_context(prometheus_scraping(directory, relay, operator))
        prometheus = Prometheus(await stack.enter_async_context(aiohttp.ClientSession(f"http://{address}")))
        # What is counted before the first scrape is no increase: the load begins after it.
        await prometheus.settled("malote_hour_limit")
        load = asyncio.create_task(send_for_ever(endpoint))
        yield prometheus
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)


@contextlib.asynccontextmanager
async def relay_at_work(directory: Path) -> AsyncIterator[tuple[str, Endpoint]]:
    """A relay's process. Gives where its metrics are, and where it takes mail."""
    authority = CertificateAuthority()
    net = f"127.{20 + os.getpid() % 200}.{os.getpid() // 200 % 250}"
    async with DnsServer(f"{net}.61") as dns, SinkMx(f"{net}.62", hostname="mx.dest.example") as mx:
        mx.recipients = {"later@dest.example": parse("defer"), "nobody@dest.example": parse("refuse")}
        for domain in ("dest.example", "acme.example"):  # bounces go back to acme.example
            dns.set(domain, "MX", "10 mx.dest.example")
        dns.set("mx.dest.example", "A", mx.address)
        write_configuration(directory, authority, dns, mx)
        arguments = ("--config", str(directory / "config"), "--spool", str(directory / "spool"))
        async with running(sys.executable, "-m", "malote_relay", *arguments) as process:
            ports = json.loads((await said(process, r'^.*"listening".*$'))[0])
            endpoint = Endpoint(HOSTNAME, ports["submission"], ca_file=directory / "ca.pem", address="127.0.0.1")
            reading = asyncio.create_task(silenced(process))
            yield f"127.0.0.1:{ports['observe']}", endpoint
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def send_for_ever(endpoint: Endpoint) -> None:
    """Mail that arrives, mail that is put off, mail that bounces, and mail that is refused at once."""
    with_sender = itertools.cycle(["ana@acme.example", "ana@acme.example", "eve@strangers.example"])
    while True:
        sender = next(with_sender)
        message = f"From: {sender}\r\nSubject: load\r\n\r\nHello\r\n".encode()
        recipients = ["bob@dest.example", "later@dest.example", "nobody@dest.example"]
        with contextlib.suppress(OSError):
            await asyncio.to_thread(client.send, endpoint, "app@acme", PASSWORD, sender, recipients, message)
        await asyncio.sleep(0.3)


def write_configuration(directory: Path, authority: CertificateAuthority, dns: DnsServer, mx: SinkMx) -> None:
    """A relay's configuration directory, as the operator would write it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    selector = "m" + hashlib.sha256(public).hexdigest()[:12]
    dns.set(f"{selector}._domainkey.acme.example", "TXT", f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}")
    certificate, certificate_key = authority.issue([HOSTNAME])
    config = RelayConfig(
        tenant=TENANT,
        hostname=HOSTNAME,
        plan=Plan(name="test", messages_per_hour=LIMIT, tolerance_percent=TOLERANCE_PERCENT),
        delivery=Delivery(
            helo_name="acme.out.example", smtp_port=mx.port, allow_networks=("127.0.0.0/8",), first_retry_seconds=1
        ),
        submission=Submission(open=True),
        # The load bounces for ever, without consequences.
        suppression=Suppression(enabled=False),
        account_pause=AccountPause(enabled=False),
        accounts=(Account(name="app", username="app@acme", verifier=passwords.verifier(PASSWORD)),),
        domains=(
            Domain(
                name="acme.example",
                sending=True,
                keys=(DkimKey(selector=selector, file=f"{selector}.acme.example.pem"),),
            ),
        ),
        sender_verification=SenderVerification(mode=SenderMode.OFF),
        resolver=Resolver(nameservers=(dns.address,), port=dns.port),
        # The relay's hour begins with the test, so that none ends during it.
        rehearsal=Rehearsal(clock_offset_seconds=3600 - int(time.time()) % 3600),
        listen=Listen(address="127.0.0.1", submission_port=0, submissions_port=0, observe_port=0),
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for place, content in {
        CONFIG_FILE: encode(config),
        KEYS_DIRECTORY / f"{selector}.acme.example.pem": pem,
        CERTIFICATE_FILE: certificate,
        CERTIFICATE_KEY_FILE: certificate_key,
    }.items():
        path = directory / "config" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (directory / "ca.pem").write_bytes(authority.pem)


@contextlib.contextmanager
def operator_at_work() -> Any:
    """The operator's registry over HTTP, with something in every metric. Gives where it is."""
    metrics = [each for each in vars(malote_operator.metrics).values() if isinstance(each, MetricWrapperBase)]
    malote_operator.metrics.count_tenants(
        [("Ready", "True", "Sending"), ("Ready", "False", "NoDomain"), ("Stalled", "True", "NameConflict")]
    )
    malote_operator.metrics.count_sending_domains(["Verified", "RecordsMissing"])

    def work() -> None:
        for metric in metrics:
            if metric in (malote_operator.metrics.TENANTS, malote_operator.metrics.SENDING_DOMAINS):
                continue
            series = metric.labels(*("some" for _ in metric._labelnames)) if metric._labelnames else metric
            if isinstance(series, prometheus_client.Histogram):
                series.observe(0.02)
            elif isinstance(series, prometheus_client.Counter):
                series.inc()
            elif isinstance(series, prometheus_client.Gauge):
                series.set(1)

    timer: asyncio.TimerHandle | None = None
    loop = asyncio.get_running_loop()

    def again() -> None:
        nonlocal timer
        work()
        timer = loop.call_later(SCRAPE_SECONDS, again)

    again()
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1")
    yield f"127.0.0.1:{server.server_port}"
    if timer is not None:
        timer.cancel()
    server.shutdown()
    server.server_close()
    thread.join()
    for metric in metrics:
        if metric._labelnames:
            metric.clear()


@contextlib.asynccontextmanager
async def prometheus_scraping(directory: Path, relay: str, operator: str) -> AsyncIterator[str]:
    """Prometheus, ready. Gives the address of its API."""
    labels = {"namespace": "malote-relays", "pod": f"{TENANT}-relay-0", "tenant": TENANT}
    relays = {"targets": [relay], "labels": labels}
    operators = {"targets": [operator], "labels": {"namespace": "malote-system", "pod": "malote-operator-0"}}
    config = {
        "global": {"scrape_interval": f"{int(SCRAPE_SECONDS * 1000)}ms", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "malote-relays/malote-relay", "static_configs": [relays]},
            {"job_name": "malote-system/malote-operator", "static_configs": [operators]},
        ],
    }
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
    arguments = (
        f"--config.file={directory / 'prometheus.yaml'}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        "--web.listen-address=127.0.0.1:0",
    )
    async with running(program("prometheus"), *arguments) as process:
        address = (await said(process, r'msg="Listening on" address=(\S+)'))[1]
        await said(process, "ready to receive web requests")
        yield address


@contextlib.asynccontextmanager
async def running(*argv: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that ends with the block."""
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE, limit=1 << 20)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.communicate(), 60)
        except TimeoutError:
            process.kill()
            await process.communicate()


async def said(process: asyncio.subprocess.Process, pattern: str) -> re.Match[str]:
    """The first line from here on, on standard error, in which the pattern is."""
    assert process.stderr is not None
    lines = ""
    async with asyncio.timeout(90):
        while line := (await process.stderr.readline()).decode():
            if match := re.search(pattern, line):
                return match
            lines += line
    raise AssertionError(f"a process ended without saying {pattern!r}:\n{lines}")


async def silenced(process: asyncio.subprocess.Process) -> None:
    """Read what a process says, so that its pipe does not fill up."""
    assert process.stderr is not None
    while await process.stderr.read(65_536):
        pass
