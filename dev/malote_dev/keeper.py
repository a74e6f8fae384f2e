"""The last one to leave: a tiny process that ends whatever its parent started and did not end itself.

Run as a script, ``python -I -S keeper.py VARIABLE=MARK``, with its standard input a pipe whose other end only the
parent holds. When that pipe closes, however the parent died, the keeper kills every process of this user whose
environment holds the mark. Processes inherit their environment, so neither a second fork nor a new session escapes.
It needs nothing but the standard library and starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time


def marked(mark: bytes) -> list[int]:
    """The ids of the living processes whose environment holds *mark* (this one's own is not counted)."""
    processes = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [process for process in processes if process != os.getpid() and _carries(process, mark)]


def _carries(process: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{process}/environ", "rb") as environ:
            return mark in environ.read().split(b"\0")
    except OSError:
        return False  # gone meanwhile, or another user's: neither is ours to end


def kill_marked(mark: bytes, patience: float = 10.0) -> None:
    """SIGKILL every marked process until none is left (a process may fork while we look) or *patience* ends."""
    deadline = time.monotonic() + patience
    while (found := marked(mark)) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(OSError):
                # A pidfd cannot come to mean another process between the look and the signal.
                handle = os.pidfd_open(process)
                try:
                    if _carries(process, mark):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                        # Its environment goes before the process does: only the handle tells the end.
                        select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
                finally:
                    os.close(handle)
        time.sleep(0.02)


if __name__ == "__main__":
    # The parent's Ctrl-C or a terminal's end is not ours: we end when the parent has.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    kill_marked(os.fsencode(sys.argv[1]))
