"""What a bench found, in the form that scripts read: build/bench/NAME.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.bench.processes import ROOT

Result = dict[str, Any]


def against(name: str, value: float, unit: str, peer: float, mark: float | None, *, less: bool = False) -> Result:
    """A figure beside a peer's. The ratio says how many times better it is; with `less`, less is better."""
    ratio = peer / value if less else value / peer
    return {
        "name": name, "value": round(value, 2), "unit": unit, "peer": round(peer, 2),
        "ratio": round(ratio, 2), "mark": mark, "met": None if mark is None else ratio >= mark,
    }  # fmt: skip


def alone(name: str, value: float, unit: str) -> Result:
    """A figure without a mark."""
    return {
        "name": name, "value": round(value, 2), "unit": unit, "peer": None, "ratio": None, "mark": None, "met": None,
    }  # fmt: skip


def at_most(name: str, value: float, unit: str, mark: float) -> Result:
    """A figure that must not exceed its mark."""
    return alone(name, value, unit) | {"mark": mark, "met": value <= mark}


def write(name: str, results: Sequence[Result]) -> None:
    """Write them, and say which marks were met."""
    path = ROOT / "build" / "bench" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    marked = [result for result in results if result["mark"] is not None]
    print(f"\n{'mark':72}{'measured':>12}{'mark':>8}")
    for one in marked:
        measured = f"{one['ratio']:.2f} ×" if one["ratio"] is not None else f"{one['value']:g} {one['unit']}"
        print(f"{one['name']:72}{measured:>12}{one['mark']:>8g}  {'met' if one['met'] else 'NOT MET'}")
    print(f"\nwritten: {path.relative_to(ROOT)}")
