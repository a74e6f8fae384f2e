"""The network namespace in which the whole node lives.

Nothing of it (addresses, routes, packet filter rules, the pods' links) exists outside, so that a run can neither
disturb the machine's network nor reach anything but its own pods, and two runs do not see each other.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from malote_dev.realnode.commands import run

NODE_ADDRESS = "192.168.77.1"
"""The node's own: API server, kubelet, cluster DNS."""
NODE_NETWORK = "192.168.77.0/24"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"

_CLONE_NEWNET = 0x40000000
_NAMED = Path("/var/run/netns")


class Namespace:
    """A named network namespace, as `ip netns` makes them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = _NAMED / name

    def create(self) -> None:
        """Make the namespace with a loopback and the node's address."""
        run(["ip", "netns", "add", self.name])
        with self.inside():
            run(["ip", "link", "set", "lo", "up"])
            # A bridge without ports carries the address: unlike a dummy device every kernel has it.
            run(["ip", "link", "add", "node0", "type", "bridge"])
            run(["ip", "address", "add", f"{NODE_ADDRESS}/24", "dev", "node0"])
            run(["ip", "link", "set", "node0", "up"])
            # Services' addresses need a route before the packet filter may rewrite them; it leads nowhere else.
            run(["ip", "route", "add", "default", "dev", "node0"])
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def delete(self) -> None:
        """Remove the namespace; what is left of its devices and rules goes with its last process."""
        if self.path.exists():
            run(["ip", "netns", "delete", self.name])

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread's sockets, and processes it starts, belong to the namespace meanwhile.

        Sockets that are open keep the namespace they were made in. Needs root.
        """
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            target = os.open(self.path, os.O_RDONLY)
            try:
                _enter(target)
            finally:
                os.close(target)
            try:
                yield
            finally:
                _enter(outside)
        finally:
            os.close(outside)


def _enter(namespace: int) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
