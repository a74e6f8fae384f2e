"""NetworkPolicies, enforced by the node's packet filter: the CNI plug-ins used here do not.

Enough of the API for what Malote renders (networking.k8s.io/v1): label selectors by equality, CIDR blocks, numbered
ports. A policy that uses more raises PolicyError: enforced in part, it would prove nothing. As the API says, traffic
between a pod and its own node always passes, so that only forwarded packets are looked at.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from malote_dev.realnode.commands import CommandError, run

Object = Mapping[str, Any]

CHAIN = "MALOTE"
"""Names of chains have at most 28 characters: this, a direction and an IPv4 address fit."""
_PATHS = ("/apis/networking.k8s.io/v1/networkpolicies", "/api/v1/pods", "/api/v1/namespaces")
_DIRECTIONS = {"Ingress": ("d", "s", "ingress", "from"), "Egress": ("s", "d", "egress", "to")}


class PolicyError(ValueError):
    """A NetworkPolicy uses what this enforcer does not know."""


def rules(policies: Iterable[Object], pods: Iterable[Object], namespaces: Iterable[Object]) -> str:
    """The input of `iptables-restore --noflush` that puts exactly these policies in force.

    Each isolated pod gets a chain a direction, in which an allowed packet returns and any other is refused.
    """
    addressed = [pod for pod in pods if pod["status"].get("podIP") and not pod["spec"].get("hostNetwork")]
    labels = {space["metadata"]["name"]: space["metadata"].get("labels", {}) for space in namespaces}
    everything = list(policies)
    chains: list[str] = [f":{CHAIN} - [0:0]"]
    jumps: list[str] = [f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"]
    body: list[str] = []
    for pod in addressed:
        address = pod["status"]["podIP"]
        for direction, (own, other, field, peers) in _DIRECTIONS.items():
            selecting = [policy for policy in everything if _selects(policy, direction, pod)]
            if not selecting:
                continue
            chain = f"{CHAIN}-{direction[:2].upper()}-{address}"
            chains.append(f":{chain} - [0:0]")
            jumps.append(f"-A {CHAIN} -{own} {address} -j {chain}")
            for policy in selecting:
                for rule in policy["spec"].get(field) or ():
                    sources = _peers(policy, rule.get(peers), addressed, labels)
                    body += [
                        f"-A {chain}{f' -{other} {source}' if source else ''}{port} -j RETURN"
                        for source in sources
                        for port in _ports(policy, rule.get("ports"))
                    ]
            body.append(f"-A {chain} -j REJECT")
    return "\n".join(["*filter", *chains, *jumps, *body, "COMMIT", ""])


def _selects(policy: Object, direction: str, pod: Object) -> bool:
    spec = policy["spec"]
    return (
        policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
        and direction in spec.get("policyTypes", ["Ingress"])
        and _matches(policy, spec.get("podSelector"), pod["metadata"].get("labels", {}))
    )


def _matches(policy: Object, selector: Object | None, labels: Object) -> bool:
    if selector and set(selector) - {"matchLabels"}:
        raise PolicyError(f"NetworkPolicy {policy['metadata']['name']}: selector {dict(selector)} is not by equality")
    return ((selector or {}).get("matchLabels") or {}).items() <= labels.items()


def _peers(
    policy: Object, peers: Iterable[Object] | None, pods: Iterable[Object], namespaces: Mapping[str, Object]
) -> list[str]:
    """Addresses and networks; "" for everyone."""
    if not peers:
        return [""]
    found: list[str] = []
    for peer in peers:
        if block := peer.get("ipBlock"):
            if block.get("except"):
                raise PolicyError(f"NetworkPolicy {policy['metadata']['name']}: ipBlock.except is not enforced here")
            found.append(str(block["cidr"]))
            continue
        for pod in pods:
            space = pod["metadata"]["namespace"]
            in_space = (
                _matches(policy, peer["namespaceSelector"], namespaces.get(space, {}))
                if "namespaceSelector" in peer
                else space == policy["metadata"]["namespace"]
            )
            if in_space and _matches(policy, peer.get("podSelector"), pod["metadata"].get("labels", {})):
                found.append(str(pod["status"]["podIP"]))
    return found


def _ports(policy: Object, ports: Iterable[Object] | None) -> list[str]:
    if not ports:
        return [""]
    for port in ports:
        if not isinstance(port.get("port"), int) or "endPort" in port:
            raise PolicyError(f"NetworkPolicy {policy['metadata']['name']}: port {dict(port)} is not one number")
    return [f" -p {port.get('protocol', 'TCP').lower()} --dport {port['port']}" for port in ports]


class Enforcer:
    """Keeps the packet filter of the network namespace it was started in as the policies say."""

    def __init__(self, listing: Callable[[str], Iterable[Object]], interval: float = 1.0) -> None:
        self._listing = listing
        self._interval = interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="network policies", daemon=True)
        self._in_force = ""
        self.error: Exception | None = None
        """What keeps the newest policies from being in force."""

    def start(self) -> None:
        """Begin; the thread inherits the caller's network namespace."""
        run(["iptables", "-N", CHAIN])
        run(["iptables", "-I", "FORWARD", "1", "-j", CHAIN])
        self._thread.start()

    def stop(self) -> None:
        """End; the rules go with the namespace."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def settle(self, within: float = 10.0) -> None:
        """Wait until what the API server has now is in force. Raises TimeoutError."""
        deadline = time.monotonic() + within
        while self._in_force != (wanted := self._wanted()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the policies are not in force: {self.error or wanted}")
            time.sleep(self._interval)

    def _wanted(self) -> str:
        return rules(*(self._listing(path) for path in _PATHS))

    def _work(self) -> None:
        while not self._over.wait(self._interval):
            try:
                wanted = self._wanted()
                if wanted != self._in_force:
                    run(["iptables-restore", "--noflush", "--wait"], text=wanted)
                    self._in_force = wanted
                self.error = None
            except (CommandError, PolicyError, OSError) as error:
                self.error = error
