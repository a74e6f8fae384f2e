"""``make bench-operator``: how long a tenant waits for the operator.

In the demo's world (a real API server, the real operator under the chart's rights, real relays as processes) tenants
are made one after the other, and three times are taken for each: manifest applied → the three records shown, and
records visible in DNS → domain Verified and → tenant Ready. Prints a table for people and writes
build/bench/operator.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.harness import program, results
from tests.harness.results import Result

from malote_dev.demo.account import StepFailed, until
from malote_dev.demo.kubectl import condition
from malote_dev.demo.world import OFFICE, RELEASE_NAMESPACE, World, world
from malote_dev.kubeapi import KubeApi, KubeConfig, Object
from malote_dev.toolchain import Toolchain

MARK_RECORDS = 2.0
MARK_READY_P95 = 10.0
KINDS = "/apis/malote.dev/v1alpha1"

PLAN: Object = {
    "apiVersion": "malote.dev/v1alpha1",
    "kind": "Plan",
    "metadata": {"name": "bench"},
    "spec": {"messagesPerHour": 1000},
}


def tenant(name: str) -> Object:
    """An approved tenant with one account."""
    return {
        "apiVersion": "malote.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {
            "planRef": {"name": "bench"},
            "namespaces": [name],
            "approval": {"approved": True},
            "contact": {"email": f"ana@{name}.example"},
            "accounts": [{"name": "app"}],
        },
    }


def sending_domain(name: str) -> Object:
    """The tenant's one domain."""
    return {
        "apiVersion": "malote.dev/v1alpha1",
        "kind": "SendingDomain",
        "metadata": {"name": "domain", "namespace": name},
        "spec": {"tenantRef": {"name": name}, "domain": f"{name}.example"},
    }


async def one(api: KubeApi, there: World, name: str) -> tuple[float, float, float]:
    """Make a tenant; gives the seconds to its records, to Verified and to Ready."""
    there.dns.add_zone(f"{name}.example")
    there.dns.set(f"{name}.example", "MX", f"10 mx.{OFFICE}")
    await api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    tenant_path, domain_path = f"{KINDS}/tenants/{name}", f"{KINDS}/namespaces/{name}/sendingdomains/domain"
    applied = time.monotonic()
    await api.create(f"{KINDS}/tenants", tenant(name))
    await api.create(f"{KINDS}/namespaces/{name}/sendingdomains", sending_domain(name))
    found = await _seen(api, domain_path, lambda it: len(it.get("status", {}).get("records", [])) == 3)
    shown = time.monotonic() - applied
    # As in life: the relay has long been there when somebody gets round to publishing the records.
    await _seen(api, tenant_path, lambda it: condition(it, "RelayAvailable")["status"] == "True")
    published = time.monotonic()
    for record in found["status"]["records"]:
        there.dns.set(record["name"], record["type"], record["value"])
    await _seen(api, domain_path, lambda it: condition(it, "Verified")["status"] == "True")
    verified = time.monotonic() - published
    await _seen(api, tenant_path, lambda it: condition(it, "Ready")["status"] == "True")
    return shown, verified, time.monotonic() - published


async def _seen(api: KubeApi, path: str, holds: Callable[[Object], bool]) -> Object:
    async def look() -> Object | None:
        found = await api.get(path)
        return found if holds(found) else None

    return await until(look, path, within=60, every=0.02)


async def run(count: int) -> int:
    """Measure `count` tenants; gives the exit status."""
    toolchain = await Toolchain.find_async()
    with tempfile.TemporaryDirectory(prefix="malote-bench-") as directory:
        async with world(Path(directory), toolchain) as there, KubeApi(KubeConfig(there.kubeconfig)) as api:
            await there.helm()
            await _seen(
                api,
                f"/apis/apps/v1/namespaces/{RELEASE_NAMESPACE}/deployments/malote-operator",
                lambda it: it.get("status", {}).get("readyReplicas", 0) >= 1,
            )
            await api.create(f"{KINDS}/plans", PLAN)
            await one(api, there, "warm-up")
            times = [await one(api, there, f"bench-{number}") for number in range(count)]
    found = _results(times)
    print(f"{'seconds, ' + str(count) + ' tenants one after the other':<52}{'median':>8}{'p95':>8}{'max':>8}   mark")
    for name, column, mark in (
        ("manifest applied → records shown", 0, f"p95 ≤ {MARK_RECORDS:g}"),
        ("records visible in DNS → domain Verified", 1, ""),
        ("records visible in DNS → tenant Ready", 2, f"p95 ≤ {MARK_READY_P95:g}"),
    ):
        values = [one[column] for one in times]
        print(f"{name:<52}{statistics.median(values):8.2f}{p95(values):8.2f}{max(values):8.2f}   {mark}")
    results.write("operator", found)
    return 1 if any(row["met"] is False for row in found) else 0


def p95(values: Sequence[float]) -> float:
    """The 95th percentile: of 20 values the 19th."""
    return sorted(values)[max(0, -(-95 * len(values) // 100) - 1)]


def _results(times: Sequence[tuple[float, float, float]]) -> list[Result]:
    shown, verified, ready = zip(*times, strict=True)
    return [
        results.at_most("applied to records shown, p95", p95(shown), "s", MARK_RECORDS),
        results.alone("records in DNS to Verified, p95", p95(verified), "s"),
        results.at_most("records in DNS to Ready, p95", p95(ready), "s", MARK_READY_P95),
    ]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench-operator", description="How long a tenant waits.")
    parser.add_argument("--tenants", type=int, default=20)
    return program.ends("bench", run(parser.parse_args().tenants), StepFailed)


if __name__ == "__main__":
    sys.exit(main())
