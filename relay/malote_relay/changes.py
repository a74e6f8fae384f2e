"""Waiting for changes in a few directories, by inotify(7), without a look every quarter of a second.

Only hints come from here: that something may have changed, or that it is time to look all the same. Kubernetes
swaps the symlink ``..data`` in a mounted Secret, an editor renames, a tool replaces a directory as a whole: all of
these are events in the directories or in their parent. What inotify does not see (some network file systems) a slow
look does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

SLOW_SECONDS: Final = 5.0
"""How often to look although nothing was told."""

POLL_SECONDS: Final = 0.5
"""How often to look where nothing can be told: no inotify, or no more watches to be had."""

_SETTLE_SECONDS: Final = 0.02
"""A change is several events: the look waits for the rest of them."""

_CREATE, _DELETE, _MOVED_FROM, _MOVED_TO = 0x100, 0x200, 0x40, 0x80
_CLOSE_WRITE, _ATTRIB, _ONLYDIR = 0x8, 0x4, 0x01000000
_MASK: Final = _CREATE | _DELETE | _MOVED_FROM | _MOVED_TO | _CLOSE_WRITE | _ATTRIB | _ONLYDIR
_BUFFER: Final = 64 * 1024


class Changes:
    """Watches a directory and some inside it while it is entered; what is not there is watched once it is."""

    def __init__(self, directory: Path, inside: Sequence[Path] = ()) -> None:
        self._directories = [os.fsencode(one) for one in (directory, *inside)]
        self._inotify = -1
        self._event = asyncio.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.working = False
        """Whether changes are told."""

    def __enter__(self) -> Self:
        with contextlib.suppress(AttributeError):  # a C library without it
            self._inotify = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify >= 0:
            asyncio.get_running_loop().add_reader(self._inotify, self._event.set)
            self._watch()
        return self

    def __exit__(self, *_: object) -> None:
        if self._inotify >= 0:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1

    async def wait(self) -> None:
        """Return when something may have changed, and every few seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SLOW_SECONDS if self.working else POLL_SECONDS):
                await self._event.wait()
                await asyncio.sleep(_SETTLE_SECONDS)
        if self._event.is_set():
            self._event.clear()
            with contextlib.suppress(BlockingIOError):
                while os.read(self._inotify, _BUFFER):
                    pass
        if self._inotify >= 0:
            self._watch()

    def _watch(self) -> None:
        """Watch each directory by its name: another one may have taken its place. Watching it twice does nothing."""
        outer, *inside = map(self._watch_one, self._directories)
        # One that is not there comes as an event of the outer one.
        self.working = outer == 0 and all(error in {0, errno.ENOENT} for error in inside)

    def _watch_one(self, directory: bytes) -> int:
        """0, or why not."""
        return 0 if self._libc.inotify_add_watch(self._inotify, directory, _MASK) >= 0 else ctypes.get_errno()
