"""What the documents name exists: links, metrics, alerts, settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

import malote_operator.metrics
from malote_relay.config import RelayConfig
from malote_relay.metrics import Metrics

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/malote"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = "\n".join(path.read_text() for path in DOCUMENTS)


def anchors(document: Path) -> set[str]:
    """What GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(((?!https?:)[^)]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_metrics_exist() -> None:
    ours = [*vars(Metrics()).values(), *vars(malote_operator.metrics).values()]
    known = {name for one in ours if isinstance(one, MetricWrapperBase) for name in (one._name, f"{one._name}_total")}
    assert set(re.findall(r"\bmalote_(?!relay\b|operator\b|dev\b)\w+", NAMED)) - known == set()


def test_alerts_exist() -> None:
    groups = yaml.safe_load((CHART / "dashboards/alerts.yaml").read_text())["groups"]
    known = {rule["alert"] for group in groups for rule in group["rules"]}
    assert set(re.findall(r"\bMalote[A-Z]\w+", NAMED)) - known == set()


def test_settings_exist() -> None:
    """Those of the chart; some sections of relay.config have the name of one of its own."""
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    told = {field.encode_name for field in msgspec.structs.fields(RelayConfig)} | {
        f"{section.encode_name}.{field.encode_name}"
        for section in msgspec.structs.fields(RelayConfig)
        if isinstance(section.type, type) and issubclass(section.type, msgspec.Struct)
        for field in msgspec.structs.fields(section.type)
    }
    written = set(re.findall(r"`([a-z]\w*(?:\.\w+)+)[`:]", NAMED))
    written -= {"relay.json", "image.lock", "bounces.acme.example"}  # files, and a host
    named = {name.removeprefix("relay.config.") for name in written if name.partition(".")[0] in values}
    assert len(named) > 30
    unknown = {name for name in named if not within(values, name) and ".".join(name.split(".")[:2]) not in told}
    assert unknown == set()


def within(values: Any, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True
