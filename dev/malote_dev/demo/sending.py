"""A tenant's application sends, and the recipient's side judges what arrives."""

from __future__ import annotations

import asyncio
import email.message
import email.policy
import email.utils
import time
from dataclasses import dataclass
from pathlib import Path

from malote_dev.demo.account import Account
from malote_dev.demo.provisioning import relay_address
from malote_dev.demo.world import RECIPIENTS, World
from malote_dev.mailworld import client
from malote_dev.mailworld.client import Endpoint, Security
from malote_dev.mailworld.verify import verify

# What the Service's ports 587 and 465 lead to: there is no kube-proxy here, so the demo goes to the pod.
TARGET_PORTS = {Security.STARTTLS: 2587, Security.TLS: 2465, Security.NONE: 2587}


@dataclass(frozen=True)
class Application:
    """What a tenant's application knows: its Secret, and where the endpoint is."""

    tenant: str
    domain: str
    host: str
    address: str
    username: str
    password: str
    ca_file: Path

    def endpoint(self, security: Security = Security.STARTTLS) -> Endpoint:
        """The endpoint with this kind of security."""
        return Endpoint(self.host, TARGET_PORTS[security], security, self.ca_file, self.address)

    async def send(
        self, mail_from: str, to: list[str], message: bytes, *, security: Security = Security.STARTTLS,
        password: str | None = None,
    ) -> client.Sent:  # fmt: skip
        """Send one message as smtplib does it."""
        return await asyncio.to_thread(
            client.send, self.endpoint(security), self.username, password or self.password, mail_from, to, message
        )


async def tenants(there: World) -> dict[str, Application]:
    """Each tenant's first account, read from the Secret in the tenant's own namespace."""
    found = {}
    domains = (await there.kubectl.get("sendingdomains", "-A"))["items"]
    for tenant in (await there.kubectl.get("tenants"))["items"]:
        name, account = tenant["metadata"]["name"], tenant["status"]["accounts"][0]
        secret = await there.kubectl.secret(tenant["spec"]["namespaces"][0], account["secretName"])
        ca_file = there.directory / f"{name}-ca.crt"
        ca_file.write_text(secret["certificates"])
        found[name] = Application(
            tenant=name,
            domain=next(d["spec"]["domain"] for d in domains if d["spec"]["tenantRef"]["name"] == name),
            host=secret["host"],
            address=await relay_address(there, name),
            username=secret["username"],
            password=secret["password"],
            ca_file=ca_file,
        )
    return found


def write(
    header_from: str, to: str, subject: str, text: str = "Olá! This is a test of the made-up Internet.\n"
) -> bytes:
    """A message as an application's mail library makes it."""
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = header_from, to, subject
    message["Date"] = email.utils.formatdate(usegmt=True)
    message["Message-ID"] = email.utils.make_msgid(domain=header_from.rpartition("@")[2].rstrip(">"))
    message.set_content(text)
    return message.as_bytes(policy=email.policy.SMTP)


async def send(account: Account, there: World, app: Application) -> None:
    """One message over STARTTLS and one over TLS; both arrive and pass the recipient's checks."""
    async with account.step(f"{app.tenant} sends with smtplib: STARTTLS on 587's port, TLS on 465's"):
        sender, to = f"hello@{app.domain}", f"bob@{RECIPIENTS}"
        for security, port in ((Security.STARTTLS, 587), (Security.TLS, 465)):
            before, started = len(there.recipients.messages), time.monotonic()
            sent = await app.send(sender, [to], write(f"Acme <{sender}>", to, f"Over {port}"), security=security)
            account.expect(sent.accepted, f"{port} ({security}): {sent}")
            received = (await there.recipients.wait_for(before + 1, timeout=20))[-1]
            account.done(f"it reached mx.{RECIPIENTS} over {received.tls} {time.monotonic() - started:.2f} s later")
            verdict = await verify(received.content, received.peer, received.helo, received.mail_from, there.dns)
            account.expect(verdict.all_pass, f"the recipient's own check: {verdict}")
        account.note("the message as it arrived, its header:")
        header = received.content.split(b"\r\n\r\n", 1)[0].decode()
        account.note("\n".join(f"  {line[:110]}" for line in header.splitlines()))
