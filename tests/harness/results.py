"""What a run has measured, in the form that scripts read: build/bench/NAME.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.harness.processes import ROOT

Result = dict[str, Any]


def against(name: str, value: float, unit: str, peer: float, mark: float | None, *, less: bool = False) -> Result:
    """A figure beside a peer's. The ratio says how many times better it is; with `less`, less is better."""
    ratio = peer / value if less else value / peer
    met = None if mark is None else ratio >= mark
    return alone(name, value, unit) | {"peer": round(peer, 3), "ratio": round(ratio, 2), "mark": mark, "met": met}


def alone(name: str, value: float, unit: str) -> Result:
    """A figure without a mark."""
    return {
        "name": name, "value": round(value, 3), "unit": unit, "peer": None, "ratio": None, "mark": None, "met": None,
    }  # fmt: skip


def at_most(name: str, value: float, unit: str, mark: float) -> Result:
    """A figure that must not exceed its mark."""
    return alone(name, value, unit) | {"mark": mark, "met": value <= mark}


def at_least(name: str, value: float, unit: str, mark: float) -> Result:
    """A figure that must reach its mark."""
    return alone(name, value, unit) | {"mark": mark, "met": value >= mark}


def show_marks(results: Sequence[Result]) -> None:
    """Print which marks were met."""
    print(f"\n{'mark':72}{'measured':>12}{'mark':>8}")
    for one in results:
        if one["mark"] is not None:
            measured = f"{one['ratio']:.2f} ×" if one["ratio"] is not None else f"{one['value']:g} {one['unit']}"
            print(f"{one['name']:72}{measured:>12}{one['mark']:>8g}  {'met' if one['met'] else 'NOT MET'}")


def write(name: str, results: Sequence[Result]) -> None:
    """Write the file."""
    path = ROOT / "build" / "bench" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten: {path.relative_to(ROOT)}")
