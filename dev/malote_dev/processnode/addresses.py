"""Pod addresses: each pod gets one out of 127/8, all of which Linux answers on without configuration.

Several nodes may run on one machine (a demo beside a test run), so each network of 254 addresses is reserved by a
socket in the kernel's abstract name space: machine-wide, and released by the kernel however its owner ends.
"""

from __future__ import annotations

import random
import socket

# 127.64.0.0/10: clear of 127.0.0.1 and of the low and high networks that people pick by hand.
_FIRST, _LAST = 64, 127


class AddressPool:
    """Gives and takes back addresses; never one that another pool on this machine may give."""

    def __init__(self) -> None:
        self._reservations: list[socket.socket] = []
        self._free: list[str] = []

    def take(self) -> str:
        """An unused address."""
        if not self._free:
            self._reserve()
        return self._free.pop(0)

    def give_back(self, address: str) -> None:
        """Allow *address* to be taken again, after all others (a late packet to its old owner finds nobody)."""
        self._free.append(address)

    def close(self) -> None:
        """Release all reservations."""
        for reservation in self._reservations:
            reservation.close()
        self._reservations.clear()
        self._free.clear()

    def _reserve(self) -> None:
        while True:
            network = f"127.{random.randint(_FIRST, _LAST)}.{random.randint(0, 255)}"  # noqa: S311 no secret
            reservation = socket.socket(socket.AF_UNIX)
            try:
                reservation.bind(f"\0malote-process-node/{network}")
            except OSError:
                reservation.close()
                continue
            self._reservations.append(reservation)
            self._free.extend(f"{network}.{host}" for host in range(1, 255))
            return
