"""kubectl as the demo's people use it: one command, its output or its error."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from malote_dev.demo.account import StepFailed


class Kubectl:
    """Runs kubectl (or another program that reads KUBECONFIG, such as helm) against one cluster."""

    def __init__(self, program: Path, kubeconfig: Path) -> None:
        self._program = program
        self._kubeconfig = kubeconfig

    async def run(self, *arguments: str, given: str = "") -> str:
        """The command's output. Raises StepFailed with its error, word for word."""
        status, output, error = await self.try_(*arguments, given=given)
        if status:
            raise StepFailed(f"{self._program.name} {' '.join(arguments)}: {error.strip()}")
        return output

    async def try_(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """Exit status, output and error of a command that may fail."""
        process = await asyncio.create_subprocess_exec(
            self._program,
            "--kubeconfig",
            str(self._kubeconfig),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, error = await process.communicate(given.encode())
        return process.returncode or 0, output.decode(), error.decode()

    async def get(self, *arguments: str) -> dict[str, Any]:
        """An object or list as JSON."""
        found: dict[str, Any] = json.loads(await self.run("get", *arguments, "-o", "json"))
        return found

    async def secret(self, namespace: str, name: str) -> dict[str, str]:
        """A Secret's data, decoded."""
        found = await self.get("secret", name, "-n", namespace)
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def condition(found: dict[str, Any], kind: str) -> dict[str, str]:
    """A condition of an object, or an empty one while it is not set."""
    conditions = found.get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == kind), {"status": "", "reason": "", "message": ""})
