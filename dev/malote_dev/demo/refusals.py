"""What is refused, in the words that the sender's software sees."""

from __future__ import annotations

from malote_dev.demo.account import Account
from malote_dev.demo.sending import Application, write
from malote_dev.demo.world import RECIPIENTS, World
from malote_dev.mailworld.client import Security, Sent


async def show(account: Account, there: World, app: Application, other: Application) -> None:
    """Each refusal of the product, tried as the tenant's own application."""
    async with account.step("What is refused, and what the sender reads"):
        arrived = len(there.recipients.messages)
        sender, to = f"hello@{app.domain}", f"bob@{RECIPIENTS}"
        good = write(sender, to, "Refused")

        def refused(what: str, code: int, sent: Sent) -> None:
            account.expect(sent.reply.code == code, f"{what}\n{sent.reply.command}: {sent}")

        refused("a wrong password", 535, await app.send(sender, [to], good, password="wrong"))  # noqa: S106
        refused("AUTH without TLS", 530, await app.send(sender, [to], good, security=Security.NONE))
        unverified = "hello@unverified.example"
        refused("a domain that is not verified", 550, await app.send(unverified, [to], write(unverified, to, "x")))
        foreign = f"hello@{other.domain}"
        refused("a domain of the other tenant", 550, await app.send(foreign, [to], write(foreign, to, "x")))
        refused("a header From that is not the tenant's", 550, await app.send(sender, [to], write(foreign, to, "x")))
        nobody = f"nobody@{app.domain}"
        refused(
            "a sender that does not exist at its provider", 550, await app.send(nobody, [to], write(nobody, to, "x"))
        )
        account.expect(len(there.recipients.messages) == arrived, "none of it was sent")
