"""The faults of a disk, put between a relay and the kernel: `faults.c`, with its knobs."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from tests.harness import preloads

_SOURCE = Path(__file__).with_name("faults.c")
_CONTROL = struct.Struct("<qIIII")

UNLIMITED = -1


class Faults:
    """What a relay's disk suffers from. `environment` is for the relay's process; the knobs work while it runs."""

    def __init__(self, directory: Path, root: Path, *, log: bool = False) -> None:
        self.log = directory / "operations.log"
        self._control = directory / "faults.control"
        self._room, self._delays, self._failing, self._dying = UNLIMITED, (0, 0), 0, False
        self._set()
        self.environment = {
            "LD_PRELOAD": str(preloads.library(_SOURCE)),
            "FAULTS_ROOT": str(root),
            "FAULTS_CONTROL": str(self._control),
        }
        if log:
            self.environment["FAULTS_LOG"] = str(self.log)

    def room(self, octets: int) -> None:
        """Files may grow by so many octets from now on."""
        self._room = octets
        self._set()

    def slow(self, least: float, most: float) -> None:
        """Every sync takes so many seconds more."""
        self._delays = int(least * 1e6), int(most * 1e6)
        self._set()

    def failing(self, share: float) -> None:
        """This share of all syncs fails with an I/O error."""
        self._failing = int(share * 1000)
        self._set()

    def dying(self, yes: bool) -> None:
        """Have the process kill itself at its next operation, when none is half done: the log is complete then."""
        self._dying = yes
        self._set()

    def _set(self) -> None:
        # In place: the relay has this very file mapped.
        descriptor = os.open(self._control, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, _CONTROL.pack(self._room, *self._delays, self._failing, self._dying), 0)
        finally:
            os.close(descriptor)
