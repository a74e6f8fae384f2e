"""Python's collector of reference cycles, kept out of a busy relay's way."""

from __future__ import annotations

import gc
from typing import Final

_COLLECT_AFTER: Final = 5000
"""New objects after which the youngest are looked through for cycles: a busy relay makes some thousand a second."""


def spare() -> None:
    """Call it once started. What is there now stays: to look through it time and again would hold the loop up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
