"""Running the machine's programs, with their words in the error when they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class CommandError(RuntimeError):
    """A program failed; the message has the command and the end of what it said."""


def run(
    argv: Sequence[str | Path],
    *,
    text: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
    log: Path | None = None,
) -> str:
    """Run a program to its end and give its standard output; `log` receives what it says on standard error.

    Raises CommandError when it fails, is not installed or takes longer than `timeout` seconds.
    """
    name = " ".join(str(part) for part in argv)
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, env=env, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise CommandError(f"{argv[0]} is not installed: run tests/e2e/prepare as root") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"`{name}` did not end within {timeout:.0f} s") from error
    if log is not None:
        log.write_text(f"$ {name}\n{done.stdout}{done.stderr}")
    if done.returncode != 0:
        last = "\n  ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-12:])
        raise CommandError(f"`{name}` failed (exit {done.returncode}):\n  {last}")
    return done.stdout
