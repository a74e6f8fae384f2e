"""The made-up Internet as pods: a recipients' mail host and an office provider with the tenants' mailboxes.

Both are `malote_dev.mailworld`'s, on port 25 as in the world outside, behind Services with fixed addresses.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from malote_dev.mailworld.control import message_from_json
from malote_dev.mailworld.received import Message
from malote_dev.realnode.images import WORLD
from malote_dev.realnode.network import NODE_ADDRESS, POD_NETWORK, SERVICE_NETWORK
from malote_dev.realnode.node import RealNode

NAMESPACE = "internet"
PLATFORM = "malote.example"
"""The platform's own domain: its relays' names and its SPF record."""
RECIPIENTS = "recipients.example"
OFFICE = "office-mail.example"
"""Where the tenants' mailboxes are; Malote works beside it."""

_SMTP, _CONTROL = 25, 8025


@dataclass(frozen=True)
class Host:
    """A mail host's control; see `malote_dev.mailworld.control`. Answers only inside the node's namespace."""

    name: str
    address: str

    def messages(self, count: int = 0, within: float = 30.0) -> list[Message]:
        """What it has received, once there are `count`. Raises TimeoutError saying how many there are."""
        deadline = time.monotonic() + within
        while True:
            found = self._call("GET", "/messages")
            if len(found) >= count:
                return [message_from_json(fields) for fields in found]
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} has received {len(found)} messages of {count} after {within:.0f} s")
            time.sleep(0.2)

    def forget(self) -> None:
        """Forget the messages."""
        self._call("DELETE", "/messages")

    def behave(self, action: str = "accept", stage: str = "rcpt") -> None:
        """Do this with everything from now on; see `malote_dev.mailworld.behaviour`."""
        self._call("PUT", "/behaviour", {"host": {"action": action, "stage": stage}})

    def behave_to(self, recipient: str, action: str) -> None:
        """Do this with mail for one recipient, and take everything else."""
        self._call("PUT", "/behaviour", {"recipients": {recipient: {"action": action, "stage": "rcpt"}}})

    def mailboxes(self, *addresses: str) -> None:
        """A provider's: exactly these mailboxes exist."""
        self._call("PUT", "/mailboxes", {"mailboxes": list(addresses)})

    def _call(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"http://{self.address}:{_CONTROL}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise ValueError(f"{self.name}: {method} {path}: {error.code} {error.read().decode()}") from error


@dataclass(frozen=True)
class Internet:
    """The hosts, once `bring_up` has started them."""

    recipients: Host
    office: Host


def bring_up(node: RealNode) -> Internet:
    """Start the hosts and publish the zones that were there before any tenant."""
    names = {"recipients": f"mx.{RECIPIENTS}", "office": f"mx.{OFFICE}"}
    commands = {"recipients": "mx", "office": "mailboxes"}
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for name, hostname in names.items():
        node.apply(_service(name), _deployment(name, commands[name], hostname))
    for name in names:
        node.kubectl("rollout", "status", "-n", NAMESPACE, f"deployment/{name}", "--timeout=90s", timeout=100)
    addresses = {name: str(node.get("service", name, "-n", NAMESPACE)["spec"]["clusterIP"]) for name in names}
    for name, zone in (("recipients", RECIPIENTS), ("office", OFFICE)):
        node.zones.set(zone, [f"@ IN MX 10 mx.{zone}.", f"mx IN A {addresses[name]}"])
    node.zones.add(OFFICE, f'_spf IN TXT "v=spf1 ip4:{addresses["office"]} -all"')
    # Pods reach each other under their own addresses: those are what relays send from.
    node.zones.set(PLATFORM, [f'spf IN TXT "v=spf1 ip4:{POD_NETWORK} -all"'])
    return Internet(*(Host(names[name], addresses[name]) for name in ("recipients", "office")))


def chart_values(image: str) -> dict[str, Any]:
    """The platform's settings for this world: everything internal that would be out of bounds elsewhere."""
    repository, _, tag = image.rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "endpoint": {"hostTemplate": f"{{tenant}}.smtp.{PLATFORM}"},
        "dns": {"spfInclude": f"spf.{PLATFORM}", "allowNetworks": [f"{NODE_ADDRESS}/32"]},
        "egress": {"heloTemplate": f"{{tenant}}.out.{PLATFORM}", "allowNetworks": [SERVICE_NETWORK]},
    }


def _service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "smtp", "port": _SMTP}, {"name": "control", "port": _CONTROL}],
        },
    }


def _deployment(name: str, command: str, hostname: str) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    # Port 25 without root.
                    "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
                    "containers": [
                        {
                            "name": "host",
                            "image": WORLD,
                            "imagePullPolicy": "Never",
                            "command": ["python3", "-m", "malote_dev.main"],
                            "args": [
                                command, "--hostname", hostname, "--listen", f"0.0.0.0:{_SMTP}",
                                "--control", f"0.0.0.0:{_CONTROL}",
                            ],
                            "readinessProbe": {
                                "httpGet": {"path": "/healthz", "port": _CONTROL}, "periodSeconds": 1,
                            },
                        }
                    ],
                },
            },
        },
    }  # fmt: skip
