"""Mail through a tenant's relay on the process node: its application, the recipients' host, who brings a bounce."""

from __future__ import annotations

import email.message
import email.policy
import secrets
import smtplib
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.integration.operator.conftest import data

from malote_dev.mailworld import client
from malote_dev.mailworld.client import Endpoint
from malote_dev.mailworld.mx import SinkMx
from malote_dev.mailworld.received import Message

if TYPE_CHECKING:
    from tests.integration.conftest import LoopThread
    from tests.integration.operator.conftest import Tenancy


def leads_to(tenancy: Tenancy, port: int) -> tuple[str, int]:
    """Where a port of the tenant's Service leads: kube-proxy and the endpoint controllers do not run here."""
    service = tenancy.child("service", f"{tenancy.name}-relay")
    (target,) = (one["targetPort"] for one in service["spec"]["ports"] if one["port"] == port)
    selector = ",".join(f"{key}={value}" for key, value in service["spec"]["selector"].items())
    (pod,) = tenancy.kubectl.json("get", "pods", "-n", tenancy.platform.relays, "-l", selector)["items"]
    ports = pod["spec"]["containers"][0]["ports"]
    (number,) = (one["containerPort"] for one in ports if one["name"] == target)
    return pod["status"]["podIP"], number


@dataclass
class Application:
    """A tenant's application, with what its Secret says."""

    tenancy: Tenancy
    directory: Path

    def send(self, to: str) -> client.Sent:
        """Send a message from hello@ the tenant's domain."""
        secret = data(self.tenancy.child("secret", f"{self.tenancy.name}-smtp-app", self.tenancy.namespace))
        authority = self.directory / "ca.crt"
        authority.write_text(secret["certificates"])
        address, port = leads_to(self.tenancy, int(secret["port"]))
        message = email.message.EmailMessage()
        message["From"], message["To"], message["Subject"] = self.sender, to, "One"
        message.set_content("Hello.\n")
        return client.send(
            Endpoint(secret["host"], port, ca_file=authority, address=address),
            secret["username"],
            secret["password"],
            self.sender,
            [to],
            message.as_bytes(policy=email.policy.SMTP),
        )

    @property
    def sender(self) -> str:
        return f"hello@{self.tenancy.domain}"


class Recipients:
    """A domain of recipients with its mail host."""

    def __init__(self, loop: LoopThread, tenancy: Tenancy, **settings: Any) -> None:
        self.domain = f"to-{tenancy.name}.example"
        self.loop, self.dns = loop, tenancy.dns
        self.host = SinkMx(loopback(), hostname=f"mx.{self.domain}", **settings)
        loop.run(self.host.start())
        self.dns.add_zone(self.domain)
        self.dns.set(self.domain, "MX", f"10 {self.host.hostname}")
        self.dns.set(self.host.hostname, "A", self.host.address)

    def received(self, count: int) -> list[Message]:
        """The messages, once there are so many."""
        return self.loop.run(self.host.wait_for(count, 60.0))

    def close(self) -> None:
        self.loop.run(self.host.stop())


def loopback() -> str:
    """Some address of 127/8 that nobody else has by chance."""
    return f"127.{secrets.randbelow(40) + 150}.{secrets.randbelow(256)}.{secrets.randbelow(250) + 2}"


def bounce(place: tuple[str, int], to: str, recipient: str) -> tuple[int, str]:
    """Bring a report (RFC 3464) to the reverse-path, as a server that took the message before: the last reply."""
    report = (
        "From: MAILER-DAEMON@mx.example\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n--b\r\n'
        "Content-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        f"Reporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: failed\r\n"
        "Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n\r\n--b--\r\n"
    )
    with smtplib.SMTP(*place, "mx.example", timeout=60) as session:
        try:
            session.sendmail("<>", [to], report.encode())
        except smtplib.SMTPRecipientsRefused as refused:
            code, words = refused.recipients[to]
            return code, words.decode()
        return 250, ""


def metric(tenancy: Tenancy, sample: str) -> float:
    """A sample of the relay's metrics by its name with labels as in the exposition; 0 where there is none."""
    address = tenancy.child("pod", f"{tenancy.name}-relay-0")["status"]["podIP"]
    with urllib.request.urlopen(f"http://{address}:9090/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{sample} "))
