"""A 250 means that the message arrives, whatever happens to the pod."""

from __future__ import annotations

import contextlib
import smtplib
import threading
import time
from collections.abc import Iterator

import pytest

from malote_dev.mailworld import client
from malote_dev.realnode.internet import RECIPIENTS, Internet

from .conftest import RELAYS, Application, Platform, Tenants, until
from .test_2_sending import HOUR, numbers, write

POD = "acme-relay-0"


@pytest.fixture
def recipients_defer(world: Internet) -> Iterator[None]:
    """The recipients' host puts everything off, so that mail stays in the queue."""
    world.recipients.forget()
    world.recipients.behave("defer")
    yield
    world.recipients.behave("accept")


def fill(app: Application, first: int, count: int, to: str = f"dave@{RECIPIENTS}") -> list[int]:
    """Send numbered messages over one connection; the numbers that were accepted."""
    accepted = []
    with client.connect(app.endpoint(), app.secret["username"], app.secret["password"]) as session:
        for number in range(first, first + count):
            if session.send("hello@acme.example", [to], write("hello@acme.example", to, f"Number {number}")).accepted:
                accepted.append(number)
    return accepted


def new_pod_ready(platform: Platform, old: str) -> bool:
    pods = platform.node.get("pods", "-n", RELAYS, "-l", "malote.dev/tenant=acme")["items"]
    return any(
        pod["metadata"]["uid"] != old
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        for pod in pods
    )


def answers(app: Application) -> bool:
    """Whether the Service leads to a relay: kube-proxy learns of a pod that is ready a moment later."""
    try:
        with client.connect(app.endpoint(), app.secret["username"], app.secret["password"]):
            return True
    except OSError:
        return False


def uid(platform: Platform) -> str:
    return str(platform.node.get("pod", POD, "-n", RELAYS)["metadata"]["uid"])


def test_mail_in_the_queue_survives_a_restart_and_a_deletion_by_force(
    platform: Platform, tenants: Tenants, world: Internet, recipients_defer: None
) -> None:
    accepted = fill(tenants.acme, 1000, 30)
    assert len(accepted) == 30

    before = uid(platform)
    platform.node.kubectl("delete", "pod", POD, "-n", RELAYS)
    until(lambda: new_pod_ready(platform, before), "the restarted relay", within=90)
    until(lambda: answers(tenants.acme), "the Service leading to it", within=90)
    accepted += fill(tenants.acme, 1030, 30)

    before = uid(platform)
    platform.node.kubectl("delete", "pod", POD, "-n", RELAYS, "--grace-period=0", "--force")
    until(lambda: new_pod_ready(platform, before), "the relay after the deletion by force", within=90)
    until(lambda: answers(tenants.acme), "the Service leading to it", within=90)
    accepted += fill(tenants.acme, 1060, 5)
    assert len(accepted) == 65
    assert world.recipients.messages() == []

    world.recipients.behave("accept")
    # Retries are minutes away: the clock goes there.
    platform.upgrade(f"rehearsal.clockOffsetSeconds={2 * HOUR}")
    assert sorted(set(numbers(world, len(accepted), within=90))) == accepted


def test_every_message_accepted_while_the_pod_is_deleted_by_force_arrives(
    platform: Platform, tenants: Tenants, world: Internet
) -> None:
    """An application sends on and on, half of it to a mailbox that puts it off; the pod is deleted without grace."""
    world.recipients.forget()
    slow, quick = f"dave@{RECIPIENTS}", f"erin@{RECIPIENTS}"
    world.recipients.behave_to(slow, "defer")
    accepted: list[int] = []
    stop = threading.Event()

    def keep_sending() -> None:
        number = 2000
        while not stop.is_set():
            with contextlib.suppress(OSError, smtplib.SMTPException):
                accepted.extend(fill(tenants.acme, number, 1, slow if number % 2 else quick))
            number += 1
            time.sleep(0.02)

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        until(lambda: len(accepted) >= 15, "the first messages", within=90)
        before = uid(platform)
        platform.node.kubectl("delete", "pod", POD, "-n", RELAYS, "--grace-period=0", "--force")
        until(lambda: new_pod_ready(platform, before), "the relay after the deletion by force", within=90)
        reached = len(accepted)
        until(lambda: len(accepted) >= reached + 15, "messages after the deletion", within=90)
    finally:
        stop.set()
        sender.join()
    assert any(number % 2 for number in accepted[:reached])
    # What was put off, or being delivered when the pod went, is tried again after its retry time.
    world.recipients.behave("accept")
    platform.upgrade(f"rehearsal.clockOffsetSeconds={3 * HOUR}")
    until(lambda: set(accepted) <= set(numbers(world, 0)), "every accepted message", within=90)


def test_only_one_relay_at_a_time_works_on_a_spool(platform: Platform, tenants: Tenants) -> None:
    """A pod deleted by force may run on for a while beside its successor: the successor must not touch the spool."""
    answer = platform.node.kubectl(
        "exec", "-n", RELAYS, POD, "--", "sh", "-c",
        "malote-relay --config /etc/malote --spool /var/spool/malote 2>&1; echo status $?", timeout=60,
    )  # fmt: skip
    assert "status 0" not in answer
    assert "another process uses the spool" in answer
