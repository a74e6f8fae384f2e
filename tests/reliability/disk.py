"""A model of what a disk has after power was lost: all that was synced, and of the rest whatever it pleases.

What is taken for granted, and no more:

- a sync of a file that has returned makes all earlier writes to it and its size durable; of a directory, the entries
  made, removed and renamed in it. The sync of a file does *not* make its name durable (ext4 would do that);
- what was not synced may be there in part and in any order: every write and every entry on its own, kept or dropped;
- within a write each sector of 512 octets is old or new. Octets outside of a write never change ("powersafe
  overwrite", which SQLite takes for granted too);
- a rename is one step: the file is at the old place or at the new one, never at none;
- a sync that failed may have written any part, and the kernel forgets the rest: a later sync does not bring it back
  (Linux marks the pages clean). Names stay as they are then;
- what a file has gained in size without its data is zeros.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability import oplog
from tests.reliability.oplog import Operation

SECTOR = 512

Keep = Callable[[], bool]
"""Whether the next thing that was not synced is there all the same."""


@dataclass(frozen=True, slots=True)
class _Write:
    position: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Cut:
    position: int
    size: int


@dataclass(slots=True)
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[_Write | _Cut] = field(default_factory=list)


_Name = tuple[int, str]
"""A directory's number and a name in it."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Names that were set (to an inode) or removed (None) in one step."""

    position: int
    names: tuple[tuple[_Name, int | None], ...]


@dataclass(frozen=True, slots=True)
class Loss:
    """One way to lose power: what becomes of each write and entry that was not synced, and whether writes tear."""

    name: str
    keep: Keep
    torn: random.Random | None = None


def dropped() -> Loss:
    """Nothing that was not synced is there."""
    return Loss("dropped", lambda: False)


def kept() -> Loss:
    """Everything is there: what a kill leaves."""
    return Loss("kept", lambda: True)


def some(dice: random.Random) -> Loss:
    """A part of it is there, in whatever order."""
    return Loss("some kept", lambda: dice.random() < 0.5)


def torn(dice: random.Random) -> Loss:
    """Most of it is there, but each sector on its own: writes are torn within a page."""
    return Loss("torn", lambda: dice.random() < 0.8, dice)


_ROOT = 0


class Disk:
    """The directory `root` after the operations told so far. An inode's number that comes again is a new one."""

    def __init__(self, root: Path, dice: random.Random | None = None) -> None:
        self._root = str(root)
        self._dice = dice or random.Random(0)
        self._files: dict[int, _File] = {}
        self._number: dict[int, int] = {}  # inode → ours
        self._next = 1
        self._live: dict[_Name, int] = {}
        self._durable: dict[_Name, int] = {}
        self._entries: list[_Entry] = []
        self._directories: set[int] = {_ROOT}

    @classmethod
    def of(cls, root: Path) -> Disk:
        """A disk that has, durably, what is in a real directory now."""
        disk = cls(root)
        for path in sorted(root.rglob("*")):
            name = disk._name(str(path))
            number = disk._fresh(path.stat().st_ino, directory=path.is_dir())
            disk._live[name] = disk._durable[name] = number
            if not path.is_dir():
                disk._files[number].durable[:] = path.read_bytes()
        return disk

    def apply(self, operation: Operation) -> None:
        """The next operation has been done."""
        match operation.kind:
            case oplog.CREATE:
                number = self._fresh(operation.inode, directory=operation.directory)
                self._enter(operation, (self._name(operation.path), number))
            case oplog.WRITE:
                file = self._files[self._number[operation.inode]]
                file.pending.append(_Write(operation.position, operation.number, operation.data))
            case oplog.CUT:
                self._files[self._number[operation.inode]].pending.append(_Cut(operation.position, operation.number))
            case oplog.SYNC:
                self._sync(operation)
            case oplog.FAILED:
                self._forget(operation)
            case oplog.REMOVE:
                self._enter(operation, (self._name(operation.path), None))
            case oplog.RENAME:
                old, new = self._name(operation.path), self._name(operation.data.decode())
                self._enter(operation, (old, None), (new, self._live[old]))
            case oplog.OPEN:
                # The root itself is never made.
                if operation.path == self._root:
                    self._number[operation.inode] = _ROOT

    def is_directory(self, inode: int) -> bool:
        """Whether it is one; for syncs."""
        return self._number[inode] in self._directories

    def write(self, target: Path, loss: Loss) -> None:
        """Make, below the new directory `target`, what is there after this loss of power."""
        names = dict(self._durable)
        for entry in self._entries:
            if loss.keep():
                _set(names, entry)
        target.mkdir()
        self._write_directory(target, _ROOT, names, loss)

    def _write_directory(self, target: Path, number: int, names: dict[_Name, int], loss: Loss) -> None:
        for (directory, name), inode in names.items():
            if directory != number or name.endswith("-shm"):  # an index in shared memory, made anew at every start
                continue
            if inode in self._directories:
                (target / name).mkdir()
                self._write_directory(target / name, inode, names, loss)
            else:
                (target / name).write_bytes(self._content(self._files[inode], loss))

    def _content(self, file: _File, loss: Loss) -> bytes | bytearray:
        if not file.pending:
            return file.durable
        content = bytearray(file.durable)
        for change in file.pending:
            if loss.keep():
                _change(content, change, loss.torn)
        return content

    def _sync(self, operation: Operation) -> None:
        number = self._number[operation.inode]
        begun = operation.number
        if number not in self._directories:
            file = self._files[number]
            for change in file.pending:
                if change.position < begun:
                    _change(file.durable, change)
            file.pending = [change for change in file.pending if change.position >= begun]
            return
        # What the entries of this directory build on is durable with them.
        needed: set[_Name] = set()
        chosen: list[_Entry] = []
        for entry in reversed([entry for entry in self._entries if entry.position < begun]):
            own = {name for name, _ in entry.names}
            if own & needed or any(directory == number for directory, _ in own):
                needed |= own
                chosen.append(entry)
        for entry in reversed(chosen):
            _set(self._durable, entry)
        self._entries = [entry for entry in self._entries if entry not in chosen]

    def _forget(self, operation: Operation) -> None:
        number = self._number[operation.inode]
        if number in self._directories:
            return
        file, begun = self._files[number], operation.number
        for change in file.pending:
            if change.position < begun and self._dice.random() < 0.5:
                _change(file.durable, change, self._dice)
        file.pending = [change for change in file.pending if change.position >= begun]

    def _enter(self, operation: Operation, *names: tuple[_Name, int | None]) -> None:
        entry = _Entry(operation.position, names)
        _set(self._live, entry)
        self._entries.append(entry)

    def _name(self, path: str) -> _Name:
        """The directory and the name of an absolute path, as things are now."""
        *folders, name = path.removeprefix(self._root).strip("/").split("/")
        number = _ROOT
        for folder in folders:
            number = self._live[number, folder]
        return number, name

    def _fresh(self, inode: int, *, directory: bool) -> int:
        number, self._next = self._next, self._next + 1
        self._number[inode] = number
        if directory:
            self._directories.add(number)
        else:
            self._files[number] = _File()
        return number


def _set(names: dict[_Name, int], entry: _Entry) -> None:
    for name, number in entry.names:
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number


def _change(content: bytearray, change: _Write | _Cut, dice: random.Random | None = None) -> None:
    size = len(content)
    if isinstance(change, _Cut):
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
        return
    end = change.offset + len(change.data)
    content.extend(bytes(max(0, end - size)))
    if dice is None:
        content[change.offset : end] = change.data
        return
    at = change.offset
    while at < end:
        following = min(end, (at // SECTOR + 1) * SECTOR)
        if dice.random() < 0.5:
            content[at:following] = change.data[at - change.offset : following - change.offset]
        at = following
