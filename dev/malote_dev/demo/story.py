"""The story `make demo` tells, in order. Each step checks what it says; the first that fails ends the story.

install → apply → publish → look → send → be refused → meet the hourly limit → look around
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from malote_dev.controlplane import ControlPlaneError
from malote_dev.demo import limit, provisioning, refusals, sending
from malote_dev.demo.account import Account, StepFailed
from malote_dev.demo.world import World, world
from malote_dev.toolchain import Toolchain, ToolchainError


async def run(*, oneshot: bool) -> int:
    """Tell the story; stay afterwards until Ctrl-C unless `oneshot`. Gives the exit status."""
    account = Account()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    story = asyncio.create_task(_tell(account, stopped, oneshot))
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait({story, stop}, return_when=asyncio.FIRST_COMPLETED)
    interrupted = not story.done()
    # Once the story is told it ends by itself when asked to stop; in the middle of it, it is broken off.
    if interrupted and not account.told:
        story.cancel()
    stop.cancel()
    try:
        return await story
    except asyncio.CancelledError:
        account.say("stopped before the end of the story")
        return 130


async def _tell(account: Account, stopped: asyncio.Event, oneshot: bool) -> int:
    try:
        async with account.step("Find the programs of a control plane (built once where there are none)"):
            toolchain = await Toolchain.find_async()
            account.note("\n".join(f"{name}: {path}" for name, path in toolchain.programs.items()))
        with tempfile.TemporaryDirectory(prefix="malote-demo-") as directory:
            async with account.step(
                "Start etcd, kube-apiserver and kube-controller-manager, a node, DNS, mail hosts"
            ):
                context = world(Path(directory), toolchain)
                there = await context.__aenter__()
                provisioning.prepare_internet(there)
                account.note(f"KUBECONFIG={there.kubeconfig}")
                account.note(
                    f"DNS: {there.dns.address} port {there.dns.port}; mail hosts: port {there.recipients.port}"
                )
            try:
                await _steps(account, there)
                account.summary()
                account.told = True
                if not oneshot:
                    _how_to_look_around(account, there)
                    await stopped.wait()
                return 0
            except StepFailed:
                _last_words(account, there)
                return 1
            finally:
                await context.__aexit__(None, None, None)
    except (StepFailed, ToolchainError, ControlPlaneError) as error:
        account.say(f"The demo ends here: {error}")
        return 1


async def _steps(account: Account, there: World) -> None:
    await provisioning.install(account, there)
    await provisioning.apply(account, there)
    await provisioning.misplaced_domain(account, there)
    await provisioning.publish(account, there)
    await provisioning.look(account, there)
    tenants = await sending.tenants(there)
    await sending.send(account, there, tenants["acme"])
    await refusals.show(account, there, tenants["acme"], tenants["globex"])
    await limit.show(account, there, tenants["globex"])


def _last_words(account: Account, there: World) -> None:
    """What a person would look at first: the ends of the operator's and the relays' logs."""
    for log in sorted((there.directory / "node").rglob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-12:]
        account.say(f"\n── the end of {log.relative_to(there.directory)}")
        for line in lines:
            account.note(line[:400])


def _how_to_look_around(account: Account, there: World) -> None:
    account.say(
        f"""
The world stays up until Ctrl-C. In another terminal:

    export KUBECONFIG={there.kubeconfig}
    alias kubectl={there.toolchain["kubectl"]}
    kubectl get plans,tenants,sendingdomains -A
    kubectl describe tenant acme
    kubectl get pods,secrets,services -n malote-relays
    kubectl get secret acme-smtp-app -n acme -o yaml          # an application's credentials
    curl http://$(kubectl get pod acme-relay-0 -n malote-relays -o jsonpath='{{.status.podIP}}'):9090/metrics
    swaks --server $(kubectl get pod acme-relay-0 -n malote-relays -o jsonpath='{{.status.podIP}}') --port 2587 \\
        --tls --auth-user app@acme --from hello@acme.example --to bob@recipients.example \\
        --auth-password $(kubectl get secret acme-smtp-app -n acme -o jsonpath='{{.data.password}}' | base64 -d)
    dig @{there.dns.address} -p {there.dns.port} TXT acme.example
    tail -f {there.directory}/node/logs/*/*/*.log"""
    )


def main(*, oneshot: bool) -> int:
    """The command's entry: without a terminal there is nobody to press Ctrl-C, so it ends after the last step."""
    return asyncio.run(run(oneshot=oneshot or not sys.stdout.isatty()))
