"""What the local world's own tests look at: processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a process runs; one that ended and that nobody has waited for yet does not."""

    def look(pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"

    return look
