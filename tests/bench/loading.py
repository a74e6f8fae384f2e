"""Running the load generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.programs import load_generator
from tests.harness.processes import Child, RunError


async def load(log: Path, environment: Mapping[str, str], **options: Any) -> dict[str, Any]:
    """Run the load generator to its end; what it said."""
    arguments = [f"-{name}={value}" for name, value in options.items()]
    child = await Child.start([load_generator(), *arguments], log, talk=True, environment=environment)
    try:
        said = await child.hear()
    finally:
        await child.stop()
    if "error" in said:
        raise RunError(f"a message was not accepted: {said['error']}")
    return said
