"""The dashboards and alert rules that ship with the chart, on a real Prometheus that scrapes a relay under load.

Every query of every panel must give values, and each alert must fire in its case and in no other.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.dashboards.conftest import (
    DASHBOARDS,
    LIMIT,
    RULES,
    SCRAPE_SECONDS,
    TENANT,
    TOLERANCE_PERCENT,
    Prometheus,
    program,
)

ALERT_CASES = Path(__file__).with_name("alerts.promtool.yaml")


@dataclass(frozen=True)
class Panel:
    """One query of one panel."""

    dashboard: str
    title: str
    query: str

    def __str__(self) -> str:
        return f"{self.dashboard}-{self.title}".replace(" ", "-")

    def filled_in(self) -> str:
        """The query as Grafana sends it, with windows in which the whole test lies: the load uses itself up."""
        filled = self.query.replace("$tenant", TENANT).replace("$__rate_interval", "20m").replace("$__range", "20m")
        assert "$" not in filled, f"a variable nobody fills in: {filled}"
        return filled


def dashboard(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return content


def panels(name: str) -> list[Panel]:
    return [
        Panel(name, panel["title"], target["expr"])
        for panel in dashboard(name)["panels"]
        for target in panel.get("targets", ())
    ]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


ALL_PANELS = panels("tenant") + panels("operator")
# One event loop for the whole module: the made-up Internet, the load and the scrapes go on from test to test.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("panel", ALL_PANELS, ids=str)
async def test_every_query_gives_values(prometheus: Prometheus, panel: Panel) -> None:
    query = panel.filled_in()
    await prometheus.settled(query)
    now = time.time()
    drawn = await prometheus.get("query_range", query=query, start=f"{now - 5}", end=f"{now}", step="1")
    assert drawn["resultType"] == "matrix"


async def test_the_tenants_to_choose_from_are_those_with_a_relay(prometheus: Prometheus) -> None:
    (variable,) = (each for each in dashboard("tenant")["templating"]["list"] if each["name"] == "tenant")
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert match
    await prometheus.settled(match[1])
    assert await prometheus.get(f"label/{match[2]}/values", **{"match[]": match[1]}) == [TENANT]


async def test_the_hour_is_drawn_against_limit_and_tolerance(prometheus: Prometheus) -> None:
    lines = {
        target["legendFormat"]: Panel("", "", target["expr"]).filled_in()
        for panel in dashboard("tenant")["panels"]
        if panel["title"] == "The hour against its limit"
        for target in panel["targets"]
    }
    over = f"{lines['charged and held']} >= {LIMIT + LIMIT * TOLERANCE_PERCENT // 100}"
    await prometheus.settled(over)  # the load has used all there is
    assert {name: (await prometheus.settled(query))[0][1] for name, query in lines.items()} == {
        "charged": LIMIT,
        "charged and held": 72,
        "limit": LIMIT,
        "limit and tolerance": 72,
    }


async def test_results_classes_and_reasons_are_told_apart(prometheus: Prometheus) -> None:
    def of(title: str) -> str:
        return next(panel.filled_in() for panel in panels("tenant") if panel.title == title)

    async def labels(title: str, label: str, *wanted: str) -> set[str]:
        for each in wanted:
            await prometheus.settled(
                f'({of(title)}) and on ({label}) label_replace(vector(1), "{label}", "{each}", "", "")'
            )
        return {found[label] for found, value in await prometheus.settled(of(title))}

    assert await labels("Deliveries by result", "result", "delivered", "deferred", "failed") == {
        "delivered",
        "deferred",
        "failed",
    }
    assert await labels("Bounces by class", "bounce_class", "bad-mailbox") == {"bad-mailbox"}
    assert {"domain", "over_limit"} <= await labels("Refusals by reason", "reason", "domain", "over_limit")


async def test_every_metric_named_exists(prometheus: Prometheus) -> None:
    expressions = [panel.query for panel in ALL_PANELS] + [rule["expr"] for rule in rules()]
    named = {name for text in expressions for name in re.findall(r"\b(?:malote|process)_\w+|\bup\b", text)}
    assert len(named) > 20
    for _ in range(120):
        missing = named - set(await prometheus.get("label/__name__/values"))
        if not missing:
            break
        await asyncio.sleep(SCRAPE_SECONDS)
    assert not missing


async def test_every_alert_is_evaluated_without_error(prometheus: Prometheus) -> None:
    for _ in range(120):
        loaded = [rule for group in (await prometheus.get("rules"))["groups"] for rule in group["rules"]]
        if all(rule["health"] != "unknown" for rule in loaded):
            break
        await asyncio.sleep(SCRAPE_SECONDS)
    assert {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in loaded} == {
        rule["alert"]: ("ok", "") for rule in rules()
    }
    for rule in rules():
        await prometheus.get("query", query=rule["expr"])


async def test_each_alert_fires_in_its_case_and_in_no_other() -> None:
    done = await asyncio.create_subprocess_exec(
        program("promtool"), "test", "rules", str(ALERT_CASES),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await done.communicate()
    assert done.returncode == 0, said.decode()
    fires = {
        expected["alertname"]
        for case in yaml.safe_load(ALERT_CASES.read_text())["tests"]
        for expected in case["alert_rule_test"]
        if expected["exp_alerts"]
    }
    assert fires == {rule["alert"] for rule in rules()}, "each alert needs a case in which it fires"


@pytest.mark.parametrize("name", ["tenant", "operator"])
async def test_a_dashboard_is_whole(name: str) -> None:
    content = dashboard(name)
    assert {path.stem for path in DASHBOARDS.glob("*.json")} == {"tenant", "operator"}
    assert "malote" in content["tags"]
    ids = [panel["id"] for panel in content["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        where = panel["gridPos"]
        cells = set(
            itertools.product(range(where["x"], where["x"] + where["w"]), range(where["y"], where["y"] + where["h"]))
        )
        assert not taken & cells, f"{panel['title']} lies on another panel"
        assert where["x"] + where["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
