"""The hourly limit with a small plan: delivered, held, refused; then the next hour, the relay's clock moved on."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request

from malote_dev.demo.account import Account, until
from malote_dev.demo.sending import Application, write
from malote_dev.demo.world import RECIPIENTS, World
from malote_dev.mailworld import client

HOUR = 3600
NOT_AT_THE_END = 45
"""Seconds before the full hour in which the step waits for the next one, so that the hour does not turn in it."""


async def show(account: Account, there: World, app: Application) -> None:
    """Fill the hour and its tolerance, go beyond, then move the clock to the next hour."""
    tenant = await there.kubectl.get("tenant", app.tenant)
    plan = (await there.kubectl.get("plan", tenant["spec"]["planRef"]["name"]))["spec"]
    limit, held = plan["messagesPerHour"], plan["messagesPerHour"] * plan["tolerancePercent"] // 100
    async with account.step(
        f"The hourly limit: {app.tenant}'s plan allows {limit} recipients an hour, {held} more are held"
    ):
        left = HOUR - time.time() % HOUR
        if left < NOT_AT_THE_END:
            account.note(f"the hour ends in {left:.0f} s: waiting for the next one")
            await asyncio.sleep(left + 1)
        before = len(there.recipients.messages)
        results = await asyncio.to_thread(_send_many, app, limit + held + 3)
        accepted = [number for number, sent in enumerate(results) if sent.accepted]
        account.expect(
            accepted == list(range(limit + held)), f"the first {limit + held} of {len(results)} are accepted"
        )
        await there.recipients.wait_for(before + limit, timeout=20)
        await asyncio.sleep(1.0)
        now = [_number(message.content) for message in there.recipients.messages[before:]]
        account.expect(sorted(now) == list(range(limit)), f"{limit} are delivered now")
        account.expect(await _metric(app, "malote_hour_held") == held, f"{held} are held on disk for the next hour")
        account.expect(results[-1].reply.code == 550, f"the rest is refused at once\n{results[-1]}")
    async with account.step("The clock moves on by an hour (helm upgrade --set rehearsal.clockOffsetSeconds=3600)"):
        before = len(there.recipients.messages)
        started = time.monotonic()
        await there.helm(f"rehearsal.clockOffsetSeconds={HOUR}")
        await there.recipients.wait_for(before + held, timeout=60)
        account.done(f"the relay's clock has moved and the held mail left {time.monotonic() - started:.1f} s later")

        async def next_hour() -> client.Sent | None:
            sent = (await asyncio.to_thread(_send_many, app, 1, 1000))[0]
            return sent if sent.accepted else None

        await until(next_hour, "the new hour's capacity", within=20)
        await there.recipients.wait_for(before + held + 1, timeout=20)
        arrived = [_number(message.content) for message in there.recipients.messages[before:]]
        # They leave in order, over connections side by side: which of them the recipient sees first is open.
        account.expect(
            sorted(arrived[:held]) == list(range(limit, limit + held)),
            f"held mail arrives before new mail: {arrived}",
        )
        account.expect(
            await _metric(app, "malote_hour_charged") == held + 1,
            f"the new hour has {held + 1} charged: the held ones count",
        )


def _send_many(app: Application, count: int, start: int = 0) -> list[client.Sent]:
    sender, to = f"hello@{app.domain}", f"carol@{RECIPIENTS}"
    with client.connect(app.endpoint(), app.username, app.password) as session:
        return [session.send(sender, [to], write(sender, to, f"Number {n}")) for n in range(start, start + count)]


def _number(content: bytes) -> int:
    found = re.search(rb"^Subject: Number (\d+)", content, re.MULTILINE)
    return int(found[1]) if found else -1


async def _metric(app: Application, name: str) -> float:
    def read() -> str:
        with urllib.request.urlopen(f"http://{app.address}:9090/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    text = await asyncio.to_thread(read)
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else float("nan")
