"""The platform team's and the tenants' part of the story: install, apply, publish, and look."""

from __future__ import annotations

import asyncio
import email
import email.policy
import time
from typing import Any

from malote_dev.demo.account import Account, StepFailed, until
from malote_dev.demo.kubectl import condition
from malote_dev.demo.world import OFFICE, RELAY_NAMESPACE, RELEASE_NAMESPACE, REPOSITORY, World

EXAMPLES = REPOSITORY / "examples"

MISPLACED = """
apiVersion: malote.dev/v1alpha1
kind: SendingDomain
metadata: {name: acme-example, namespace: default}
spec: {tenantRef: {name: acme}, domain: acme.example}
"""


async def install(account: Account, there: World) -> None:
    """Helm installs the chart: CRDs, rights, the operator; the node runs it with its own service account's token."""
    async with account.step("Install Malote: helm upgrade --install malote charts/malote"):
        await there.helm()
        account.done("the chart is applied: CRDs, RBAC, settings, Deployment malote-operator")

        async def ready() -> bool | None:
            found = await there.kubectl.get("deployment", "malote-operator", "-n", RELEASE_NAMESPACE)
            return found.get("status", {}).get("readyReplicas", 0) >= 1 or None

        await until(ready, "the operator to be ready", within=60)
        account.done("the operator runs with the rights of ServiceAccount malote-operator, nobody's admin")


async def apply(account: Account, there: World) -> None:
    """The examples are applied; relays start with submission closed; each domain shows its three records."""
    async with account.step("Apply examples/: two plans, two tenants, their namespaces and sending domains"):
        started = time.monotonic()
        account.note((await there.kubectl.run("apply", "-f", str(EXAMPLES), "--recursive")).strip())
        domains = await until(lambda: _domains_with_records(there), "the records to paste", within=30)
        account.done(f"each domain shows its three DNS entries {time.monotonic() - started:.1f} s after the apply")
        for domain in domains:
            for record in domain["status"]["records"]:
                value = record["value"] if len(record["value"]) < 70 else record["value"][:67] + "…"
                account.note(f"  {record['type']} {record['name']}  {value}")
        await until(lambda: _relays_ready(there), "the relays to start", within=30)
        account.done("both relays run; submission is closed until their domains are verified")


async def misplaced_domain(account: Account, there: World) -> None:
    """A SendingDomain in a namespace that the Tenant does not list is refused there."""
    async with account.step("A SendingDomain in a namespace that its Tenant does not list"):
        await there.kubectl.run("apply", "-f", "-", given=MISPLACED)

        async def refused() -> dict[str, str] | None:
            found = condition(await there.kubectl.get("sendingdomain", "acme-example", "-n", "default"), "Accepted")
            return found if found["status"] == "False" else None

        found = await until(refused, "the domain to be refused", within=10)
        account.expect(found["reason"] == "NamespaceNotAllowed", f"Accepted=False, {found['reason']}")
        account.note(f"  “{found['message']}”")
        await there.kubectl.run("delete", "sendingdomain", "acme-example", "-n", "default")


async def publish(account: Account, there: World) -> None:
    """The demo plays the tenants: it pastes the records exactly as the status shows them, then waits for Ready."""
    async with account.step("The tenants publish the records exactly as their status shows them"):
        domains = (await there.kubectl.get("sendingdomains", "-A"))["items"]
        started = time.monotonic()
        for domain in domains:
            for record in domain["status"]["records"]:
                there.dns.set(record["name"], record["type"], record["value"])
        await until(lambda: _all_true(there, "sendingdomains", "Verified"), "the domains to be Verified", within=60)
        account.done(f"all domains are Verified {time.monotonic() - started:.1f} s after the records appeared")
        await until(lambda: _all_true(there, "tenants", "Ready"), "the tenants to be Ready", within=60)
        account.done(f"all tenants are Ready {time.monotonic() - started:.1f} s after the records appeared")
        tenants = (await there.kubectl.get("tenants"))["items"]
        for received in await there.office.wait_for(len(tenants), timeout=20):
            letter = email.message_from_bytes(received.content, policy=email.policy.default)
            account.done(f"the welcome mail reached {', '.join(received.recipients)}: “{letter['Subject']}”")


async def look(account: Account, there: World) -> None:
    """What kubectl shows, and that the credentials lie where the tenants' applications can mount them."""
    async with account.step("kubectl get plans,tenants,sendingdomains"):
        for kind in ("plans", "tenants", "sendingdomains"):
            arguments = ("get", kind, "-A") if kind == "sendingdomains" else ("get", kind)
            account.note(await there.kubectl.run(*arguments))
        for tenant in (await there.kubectl.get("tenants"))["items"]:
            for namespace in tenant["spec"]["namespaces"]:
                for one in tenant["status"]["accounts"]:
                    secret = await there.kubectl.secret(namespace, one["secretName"])
                    shown = {**secret, "password": "…", "uri": "…", "certificates": "…"}
                    account.done(f"Secret {namespace}/{one['secretName']}: {_in_words(shown)}")


def prepare_internet(there: World) -> None:
    """What was there before Malote: the tenants' domains, with mail at their office provider and its SPF record."""
    for domain in ("acme.example", "globex.example"):
        there.dns.add_zone(domain)
        there.dns.set(domain, "MX", f"10 mx.{OFFICE}")
        there.dns.set(domain, "TXT", f"v=spf1 include:_spf.{OFFICE} ~all")
        there.office.mailboxes |= {f"hello@{domain}", f"ana@{domain}", f"hank@{domain}", f"news@{domain}"}


async def relay_address(there: World, tenant: str) -> str:
    """The address of a tenant's relay pod."""
    pod = await there.kubectl.get("pod", f"{tenant}-relay-0", "-n", RELAY_NAMESPACE)
    return str(pod["status"]["podIP"])


async def _domains_with_records(there: World) -> list[dict[str, Any]] | None:
    domains: list[dict[str, Any]] = (await there.kubectl.get("sendingdomains", "-A"))["items"]
    complete = [domain for domain in domains if len(domain.get("status", {}).get("records", [])) == 3]
    return complete if domains and len(complete) == len(domains) else None


async def _relays_ready(there: World) -> bool | None:
    tenants, sets = await asyncio.gather(
        there.kubectl.get("tenants"), there.kubectl.get("statefulsets", "-n", RELAY_NAMESPACE)
    )
    ready = [item for item in sets["items"] if item.get("status", {}).get("readyReplicas")]
    return len(ready) == len(tenants["items"]) or None


async def _all_true(there: World, kind: str, type_: str) -> bool | None:
    items = (await there.kubectl.get(kind, "-A"))["items"]
    if not items:
        raise StepFailed(f"there are no {kind}")
    return all(condition(item, type_)["status"] == "True" for item in items) or None


def _in_words(values: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(values.items()))
