"""What a target is, and how its inputs are made where no coverage guides them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

CORPUS = Path(__file__).with_name("corpus")
_NOISE = (b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b".", b":", b"<", b">", b"@", b'"', b"\\", b"\xff", "é".encode())


@dataclass(frozen=True)
class Target:
    """Something that must hold for all octets. `check` raises when it does not."""

    name: str
    check: Callable[[bytes], None]
    words: Sequence[bytes] = ()
    seeds: Sequence[bytes] = ()
    most: int = 60
    """Words in an input that is put together."""

    @property
    def found(self) -> list[Path]:
        """Inputs that broke it once."""
        return sorted((CORPUS / self.name).glob("*"))

    def inputs(self) -> st.SearchStrategy[bytes]:
        """Words and noise in any order, seeds with something put in, and plain noise."""
        piece = st.one_of(st.sampled_from([*self.words, *_NOISE]), st.binary(max_size=4))
        text = st.lists(piece, max_size=self.most).map(b"".join)
        seeds = st.sampled_from(list(self.seeds) or [b""])
        spliced = st.tuples(seeds, st.integers(0, 4096), st.integers(0, 20), text).map(_splice)
        return st.one_of(text, spliced, st.binary(max_size=200))


def _splice(parts: tuple[bytes, int, int, bytes]) -> bytes:
    seed, at, dropped, text = parts
    place = at % (len(seed) + 1)
    return seed[:place] + text + seed[place + dropped :]


def all_targets() -> dict[str, Target]:
    """Every target in targets/, by its name."""
    from tests.fuzz import targets

    modules = [
        importlib.import_module(f"tests.fuzz.targets.{one.name}") for one in pkgutil.iter_modules(targets.__path__)
    ]
    return {module.TARGET.name: module.TARGET for module in modules}
