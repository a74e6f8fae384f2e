"""What stands in for a cluster and the Internet while the demo runs, and the platform installed on it.

The control plane, the operator and the relays are the real ones. Made up are: the node (pods run as processes),
the DNS (one server plays every name server) and the recipients' and the tenants' mail hosts.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from malote_dev.controlplane import ControlPlane
from malote_dev.demo.kubectl import Kubectl
from malote_dev.mailworld.dns import DnsServer
from malote_dev.mailworld.mailboxes import MailboxProvider
from malote_dev.mailworld.mx import SinkMx
from malote_dev.processnode import ProcessNode
from malote_dev.toolchain import Toolchain

REPOSITORY = Path(__file__).resolve().parents[3]
RELEASE_NAMESPACE = "malote-system"
RELAY_NAMESPACE = "malote-relays"
PLATFORM = "malote.example"
RECIPIENTS = "recipients.example"
OFFICE = "office-mail.example"
"""The provider where the tenants' mailboxes are; Malote works beside it."""


@dataclass
class World:
    """Everything the story touches. `values` are the Helm values the platform was installed with."""

    directory: Path
    toolchain: Toolchain
    kubeconfig: Path
    kubectl: Kubectl
    node: ProcessNode
    dns: DnsServer
    recipients: SinkMx
    office: MailboxProvider
    values: dict[str, Any] = field(default_factory=dict)

    async def helm(self, *overrides: str) -> str:
        """Install or upgrade the platform from charts/malote, as its README says, with `--set` overrides."""
        values = self.directory / "values.yaml"
        values.write_text(yaml.safe_dump(self.values))
        sets = [argument for override in overrides for argument in ("--set", override)]
        return await Kubectl(self.toolchain["helm"], self.kubeconfig).run(
            "upgrade", "--install", "malote", str(REPOSITORY / "charts/malote"),
            "--namespace", RELEASE_NAMESPACE, "--create-namespace", "--values", str(values), *sets,
        )  # fmt: skip


@contextlib.asynccontextmanager
async def internet(directory: Path) -> AsyncIterator[tuple[DnsServer, SinkMx, MailboxProvider]]:
    """DNS, the recipients' mail host and the tenants' provider, each on a loopback address of its own."""
    # Each run takes a net of its own in 127/8, so that two demos do not meet.
    net = f"127.{random.randint(200, 249)}.{random.randint(0, 255)}"  # noqa: S311 no secret: an address
    async with (
        DnsServer(f"{net}.53") as dns,
        SinkMx(f"{net}.25", hostname=f"mx.{RECIPIENTS}") as recipients,
        MailboxProvider((), f"{net}.26", recipients.port, hostname=f"mx.{OFFICE}") as office,
    ):
        for zone in (PLATFORM, RECIPIENTS, OFFICE):
            dns.add_zone(zone)
        dns.set(f"mx.{RECIPIENTS}", "A", recipients.address)
        dns.set(RECIPIENTS, "MX", f"10 mx.{RECIPIENTS}")
        dns.set(f"mx.{OFFICE}", "A", office.address)
        dns.set(f"_spf.{OFFICE}", "TXT", f"v=spf1 ip4:{office.address} -all")
        # What the platform publishes for its relays' source addresses.
        dns.set(f"spf.{PLATFORM}", "TXT", "v=spf1 ip4:127.0.0.0/8 -all")
        yield dns, recipients, office


def chart_values(dns: DnsServer, recipients: SinkMx, office: MailboxProvider) -> dict[str, Any]:
    """The platform's settings for this world: its names, its DNS server, its port for SMTP, its way to send mail."""
    return {
        "endpoint": {"hostTemplate": f"{{tenant}}.smtp.{PLATFORM}"},
        "dns": {
            "spfInclude": f"spf.{PLATFORM}",
            "nameservers": [dns.address],
            "port": dns.port,
            "allowNetworks": ["127.0.0.0/8"],
        },
        "egress": {
            "heloTemplate": f"{{tenant}}.out.{PLATFORM}",
            "smtpPort": recipients.port,
            "allowNetworks": ["127.0.0.0/8"],
        },
        "relay": {"nameservers": [dns.address], "dnsPort": dns.port},
        "notices": {
            "host": office.address,
            "port": office.port,
            "security": "None",
            "fromAddress": f"Malote <welcome@{PLATFORM}>",
        },
    }


@contextlib.asynccontextmanager
async def world(directory: Path, toolchain: Toolchain) -> AsyncIterator[World]:
    """Bring everything up and, at the end, down again; the platform itself is installed by the story."""
    async with contextlib.AsyncExitStack() as stack:
        dns, recipients, office = await stack.enter_async_context(internet(directory))
        plane = await stack.enter_async_context(ControlPlane(toolchain, directory / "control-plane"))
        node = await stack.enter_async_context(
            ProcessNode(
                kubeconfig=plane.kubeconfig, directory=directory / "node", path=[str(Path(sys.executable).parent)]
            )
        )
        yield World(
            directory=directory,
            toolchain=toolchain,
            kubeconfig=plane.kubeconfig,
            kubectl=Kubectl(toolchain["kubectl"], plane.kubeconfig),
            node=node,
            dns=dns,
            recipients=recipients,
            office=office,
            values=chart_values(dns, recipients, office),
        )
