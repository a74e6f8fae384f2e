"""``python -m tests.fuzz TARGET --seconds N``: look for inputs that break a target."""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from tests.fuzz.target import CORPUS, Target, all_targets

from malote_dev.toolchain import cache_directory


class Counting:
    """The target's check, counted, and each input that breaks it kept."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.executions = 0
        self.broken: bytes | None = None

    def __call__(self, data: bytes) -> None:
        self.executions += 1
        try:
            self.target.check(data)
        except Exception:
            if self.broken is None or len(data) <= len(self.broken):
                self.broken = data
            raise

    def keep(self) -> Path | None:
        if self.broken is None:
            return None
        place = CORPUS / self.target.name
        place.mkdir(parents=True, exist_ok=True)
        file = place / hashlib.sha256(self.broken).hexdigest()[:16]
        file.write_bytes(self.broken)
        return file


def by_hypothesis(check: Counting, seconds: float) -> None:
    """Rounds of inputs with another seed each, until the time is over. Raises what the check raises."""
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1

        @settings(
            max_examples=500,
            deadline=None,
            database=None,
            verbosity=Verbosity.quiet,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @seed(time.time_ns())
        @given(check.target.inputs())
        def tried(data: bytes) -> None:
            check(data)

        tried()


def by_atheris(check: Counting, seconds: float, import_target: Callable[[], Target]) -> None:
    """libFuzzer's search, guided by the code that inputs reach. Ends the process.

    Inputs that reached something new stay in the cache: the next run begins where this one ends.
    """
    import atheris

    with atheris.instrument_imports(include=["malote_relay"]):
        check.target = import_target()
    reached = cache_directory() / "fuzz" / check.target.name
    reached.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        seeds, words = Path(place, "seeds"), Path(place, "words")
        seeds.mkdir()
        for number, one in enumerate([*check.target.seeds, *(path.read_bytes() for path in check.target.found)]):
            (seeds / str(number)).write_bytes(one)
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in check.target.words))
        options = [f"-max_total_time={int(seconds)}", f"-dict={words}", "-max_len=8192", f"-artifact_prefix={place}/",
                   "-print_final_stats=1", "-verbosity=0"]  # fmt: skip
        atheris.Setup([sys.argv[0], str(reached), str(seeds), *options], _kept(check))
        atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in word)


def _kept(check: Counting) -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        try:
            check(data)
        except Exception:
            print(f"kept as {check.keep()}", file=sys.stderr)
            raise

    return one


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").strip())
    parser.add_argument("target", nargs="?", default="")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--hypothesis", action="store_true", help="not by atheris, even where it is installed")
    said = parser.parse_args()
    targets = all_targets() if said.list or said.hypothesis or not _has_atheris() else {}
    if said.list:
        print("\n".join(targets))
        return 0
    if targets and said.target not in targets:
        parser.error(f"the targets are {', '.join(targets)}")
    if not targets:
        by_atheris(Counting(Target("", lambda _: None)), said.seconds, lambda: all_targets()[said.target])
        return 0
    check = Counting(targets[said.target])
    begun, cpu = time.monotonic(), time.process_time()
    try:
        by_hypothesis(check, said.seconds)
    except Exception as error:
        print(f"{said.target} broke: {error!r}; kept as {check.keep()}", file=sys.stderr)
        raise
    finally:
        spent = time.process_time() - cpu
        print(f"{said.target}: {check.executions} executions in {time.monotonic() - begun:.0f} s ({spent:.0f} s CPU)")
    return 0


def _has_atheris() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
