"""Showing that something long is going on: a moving line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_BAR = 24


def duration(seconds: float) -> str:
    """Seconds as people read them: ``7 s``, ``2:50``."""
    whole = int(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d}"


class Task:
    """One long thing: its title, how long it should take, and what it is doing at this moment."""

    def __init__(self, title: str, expected: float, clock: Callable[[], float]) -> None:
        self.title = title
        self.expected = expected
        self._clock = clock
        self._started = clock()
        self._detail = ""
        self.details = 0

    def detail(self, text: str) -> None:
        """Say what goes on at this moment; each call counts as movement."""
        self._detail = text
        self.details += 1

    @property
    def elapsed(self) -> float:
        """Seconds since the task began."""
        return self._clock() - self._started

    def line(self, width: int, frame: str) -> str:
        """The task as one line of at most *width* characters."""
        # An estimate may be wrong: the bar stops short of its end until the work really is done.
        done = min(self.elapsed / self.expected, 0.97) if self.expected else 0.0
        filled = round(done * _BAR)
        bar = "█" * filled + "░" * (_BAR - filled)
        text = f"{frame} {self.title}  {bar}  {duration(self.elapsed)} of about {duration(self.expected)}"
        if self._detail:
            text += f"  {self.details}: {self._detail}"
        return text[: width - 1]


class Progress:
    """Shows tasks on a stream. Use as a context manager, or not at all: each task closes what it opened."""

    def __init__(
        self, stream: TextIO | None = None, *, every: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._every = every
        self._clock = clock
        self._step = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._step = ""

    def step(self, text: str) -> None:
        """What the following tasks' titles begin with, such as ``2 of 4``."""
        self._step = text

    @contextmanager
    def task(self, title: str, expected: float) -> Iterator[Task]:
        """Show *title* while the block runs, with the seconds it is *expected* to take."""
        task = Task(f"[{self._step}] {title}" if self._step else title, expected, self._clock)
        over = threading.Event()
        shower = threading.Thread(target=self._show, args=(task, over), daemon=True)
        if not self._terminal:
            self._write(f"{task.title} (about {duration(expected)}) …\n")
        shower.start()
        outcome = "failed after"
        try:
            yield task
            outcome = "done in"
        finally:
            over.set()
            shower.join()
            clear = "\r\x1b[K" if self._terminal else ""
            self._write(f"{clear}{task.title}: {outcome} {duration(task.elapsed)}\n")

    def _show(self, task: Task, over: threading.Event) -> None:
        frame = 0
        while not over.wait(0.1 if self._terminal else self._every):
            if self._terminal:
                width = _terminal_width(self._stream)
                self._write("\r\x1b[K" + task.line(width, _FRAMES[frame % len(_FRAMES)]))
                frame += 1
            else:
                self._write(f"  {task.line(160, '·')}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _terminal_width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 80
