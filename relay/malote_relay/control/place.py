"""Where the socket is, and how it is reached when its path is long.

The address of a Unix socket has room for 107 octets (unix(7)), a path for 4096. A longer one is reached through a
descriptor of its directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SOCKET: Final = "control.sock"

_LONGEST: Final = 107


@contextmanager
def address(spool: Path) -> Iterator[str]:
    """The socket's address, to bind or connect to meanwhile. Raises OSError when there is no such directory."""
    path = spool / SOCKET
    if len(os.fsencode(path)) <= _LONGEST:
        yield os.fspath(path)
        return
    descriptor = os.open(spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
