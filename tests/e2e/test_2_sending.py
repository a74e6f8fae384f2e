"""The main job: YAML in, signed mail out; and what is refused, in the words that a sender reads."""

from __future__ import annotations

import email.message
import email.policy
import email.utils
import re
import time
import urllib.request

import pytest

from malote_dev.mailworld import client
from malote_dev.mailworld.client import Security
from malote_dev.mailworld.verify import DnsAt, verify_blocking
from malote_dev.realnode.internet import RECIPIENTS, Internet

from .conftest import IMAGE, RELAYS, Application, Platform, Tenants, condition, until

HOUR = 3600


def write(sender: str, to: str, subject: str) -> bytes:
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message["Date"] = email.utils.formatdate(usegmt=True)
    message["Message-ID"] = email.utils.make_msgid(domain=sender.rpartition("@")[2])
    message.set_content("Olá, este é um teste.\n")
    return message.as_bytes(policy=email.policy.SMTP)


def send(
    app: Application,
    *,
    sender: str = "",
    header_from: str = "",
    security: Security = Security.STARTTLS,
    password: str = "",
    subject: str = "One",
) -> client.Sent:
    sender, to = sender or f"hello@{app.domain}", f"bob@{RECIPIENTS}"
    return client.send(
        app.endpoint(security), app.secret["username"], password or app.secret["password"],
        sender, [to], write(header_from or sender, to, subject),
    )  # fmt: skip


class TestProvisioning:
    def test_each_domain_shows_its_records_soon_after_the_apply(self, tenants: Tenants) -> None:
        # The mark of 2 s is for a machine with nothing else to do; here the node starts relays meanwhile.
        assert tenants.records_shown < 10

    def test_tenants_are_ready_soon_after_the_records_appear(self, tenants: Tenants) -> None:
        assert tenants.ready < 60

    def test_kubectl_shows_what_is_fine(self, platform: Platform, tenants: Tenants) -> None:
        tables = {kind: platform.node.kubectl("get", kind, "-A") for kind in ("tenants", "sendingdomains")}
        assert re.search(r"^acme\b.*\bTrue\b", tables["tenants"], re.MULTILINE), tables["tenants"]
        assert re.search(r"acme\.example\b.*\bTrue\b", tables["sendingdomains"]), tables["sendingdomains"]

    def test_the_credentials_follow_the_service_binding_convention(self, tenants: Tenants) -> None:
        secret = tenants.acme.secret
        assert {"type", "provider", "host", "port", "username", "password", "uri"} <= secret.keys()
        assert secret["type"] == "smtp"
        assert secret["username"] == "app@acme"
        assert len(secret["password"]) >= 32

    def test_relays_run_restricted_on_volumes_of_their_own(self, platform: Platform, tenants: Tenants) -> None:
        script = (
            "import os; s = os.stat('/var/spool/malote');"
            "print(os.getuid(), s.st_gid, os.access('/', os.W_OK), os.path.exists('/var/run/secrets/kubernetes.io'))"
        )
        said = platform.node.kubectl("exec", "-n", RELAYS, "acme-relay-0", "--", "python3", "-c", script)
        assert said.split() == ["10001", "10001", "False", "False"]
        claims = platform.node.get("pvc", "-n", RELAYS)["items"]
        assert {claim["status"]["phase"] for claim in claims} == {"Bound"}
        assert len({claim["spec"]["volumeName"] for claim in claims}) == 2

    def test_a_domain_in_a_namespace_that_its_tenant_does_not_list_is_not_accepted(
        self, platform: Platform, tenants: Tenants
    ) -> None:
        domain = {
            "apiVersion": "malote.dev/v1alpha1",
            "kind": "SendingDomain",
            "metadata": {"name": "acme-example", "namespace": "globex"},
            "spec": {"tenantRef": {"name": "acme"}, "domain": "acme.example"},
        }
        platform.node.apply(domain)

        def accepted() -> dict[str, str] | None:
            found = condition(platform.node.get("sendingdomain", "acme-example", "-n", "globex"), "Accepted")
            return found if found["status"] else None

        try:
            found = until(accepted, "the domain to be judged", within=90)
            assert (found["status"], found["reason"]) == ("False", "NamespaceNotAllowed")
        finally:
            platform.node.kubectl("delete", "sendingdomain", "acme-example", "-n", "globex")


class TestArriving:
    @pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
    def test_a_message_arrives_signed_and_passes_the_recipients_checks(
        self, platform: Platform, tenants: Tenants, world: Internet, security: Security
    ) -> None:
        world.recipients.forget()
        sent = send(tenants.acme, security=security)
        assert sent.reply.code == 250, str(sent)
        (message,) = world.recipients.messages(1)
        verdict = verify_blocking(
            message.content, message.peer, message.helo, message.mail_from, DnsAt(platform.node.cluster_dns)
        )
        assert verdict.all_pass, str(verdict)
        assert verdict.dkim_domain == "acme.example"
        assert message.helo == "acme.out.malote.example"
        assert message.tls

    def test_an_application_in_a_pod_sends_with_nothing_but_its_mounted_secret(
        self, platform: Platform, tenants: Tenants, world: Internet
    ) -> None:
        """By the endpoint's name, the certificate checked against the authority that is in the Secret."""
        world.recipients.forget()
        script = f"""
import pathlib, smtplib, ssl
s = {{f.name: f.read_text() for f in pathlib.Path("/bindings/smtp").iterdir() if f.is_file()}}
with smtplib.SMTP(s["host"], int(s["port"]), timeout=20) as smtp:
    smtp.starttls(context=ssl.create_default_context(cadata=s["certificates"]))
    smtp.login(s["username"], s["password"])
    smtp.sendmail("hello@acme.example", ["carol@{RECIPIENTS}"],
                  "From: hello@acme.example\\r\\nTo: carol@{RECIPIENTS}\\r\\nSubject: from a pod\\r\\n\\r\\nHi\\r\\n")
"""
        platform.node.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "client", "namespace": "acme"},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {
                            "name": "app",
                            "image": IMAGE,
                            "imagePullPolicy": "Never",
                            "command": ["python3", "-c", script],
                            "volumeMounts": [{"name": "smtp", "mountPath": "/bindings/smtp"}],
                        }
                    ],
                    "volumes": [{"name": "smtp", "secret": {"secretName": "acme-smtp-app"}}],
                },
            }
        )

        def phase() -> str | None:
            found = platform.node.get("pod", "client", "-n", "acme")["status"]["phase"]
            return found if found in {"Succeeded", "Failed"} else None

        ended = until(phase, "the client to end", within=90)
        assert ended == "Succeeded", platform.node.kubectl("logs", "-n", "acme", "client")
        (message,) = world.recipients.messages(1)
        assert b"Subject: from a pod" in message.content


class TestRefused:
    @pytest.fixture(autouse=True)
    def nothing_arrives(self, world: Internet) -> None:
        world.recipients.forget()

    def test_a_wrong_password_is_refused(self, tenants: Tenants) -> None:
        sent = send(tenants.acme, password="wrong")
        assert (sent.reply.code, sent.reply.text[:5]) == (535, "5.7.8"), str(sent)

    def test_signing_in_before_tls_is_refused(self, tenants: Tenants) -> None:
        sent = send(tenants.acme, security=Security.NONE)
        assert sent.reply.code == 530, str(sent)
        assert "STARTTLS" in sent.reply.text

    def test_another_tenants_credentials_are_refused(self, tenants: Tenants) -> None:
        sent = client.send(
            tenants.acme.endpoint(), tenants.globex.secret["username"], tenants.globex.secret["password"],
            "hello@acme.example", [f"bob@{RECIPIENTS}"], b"From: hello@acme.example\r\n\r\nHi\r\n",
        )  # fmt: skip
        assert sent.reply.code == 535, str(sent)

    @pytest.mark.parametrize(
        ("sender", "header_from", "names"),
        [
            ("hello@unverified.example", "", "unverified.example"),
            ("hello@globex.example", "", "globex.example"),
            ("hello@acme.example", "hello@globex.example", "globex.example"),
            ("hello@sub.acme.example", "", "sub.acme.example"),
            ("nobody@acme.example", "", "nobody@acme.example"),
        ],
    )
    def test_a_sender_that_is_not_the_tenants_is_refused(
        self, tenants: Tenants, world: Internet, sender: str, header_from: str, names: str
    ) -> None:
        sent = send(tenants.acme, sender=sender, header_from=header_from)
        assert sent.reply.code == 550, str(sent)
        assert names in sent.reply.text, str(sent)
        time.sleep(0.5)
        assert world.recipients.messages() == []


class TestTheHourlyLimit:
    """Plan `starter`: 20 recipients an hour, 4 more held, the rest refused."""

    def test_within_delivered_then_held_then_refused_and_the_held_ones_leave_with_the_next_hour(
        self, platform: Platform, tenants: Tenants, world: Internet
    ) -> None:
        left = HOUR - time.time() % HOUR
        if left < 240:
            # The hour must not turn while it is being filled and looked at.
            time.sleep(left + 1)
        world.recipients.forget()
        app, to = tenants.globex, f"carol@{RECIPIENTS}"
        with client.connect(app.endpoint(), app.secret["username"], app.secret["password"]) as session:
            results = [
                session.send("hello@globex.example", [to], write("hello@globex.example", to, f"Number {number}"))
                for number in range(27)
            ]
        assert [number for number, sent in enumerate(results) if sent.accepted] == list(range(24))
        refused = results[-1].reply
        assert (refused.code, refused.text[:5]) == (550, "5.7.1")
        assert "starter" in refused.text.lower()
        assert "20" in refused.text

        assert sorted(numbers(world, 20)) == list(range(20))
        time.sleep(2)
        assert len(world.recipients.messages()) == 20
        assert metric(platform, "globex", "malote_hour_held") == 4

        pod = platform.node.get("pod", "globex-relay-0", "-n", RELAYS)["metadata"]["uid"]
        platform.upgrade(f"rehearsal.clockOffsetSeconds={HOUR}")
        assert sorted(numbers(world, 24, within=90)[20:]) == [20, 21, 22, 23]
        assert metric(platform, "globex", "malote_hour_charged") == 4
        # The clock moved in the running relay.
        assert platform.node.get("pod", "globex-relay-0", "-n", RELAYS)["metadata"]["uid"] == pod


def numbers(world: Internet, count: int, within: float = 90) -> list[int]:
    subjects = (
        re.search(rb"^Subject: Number (\d+)", m.content, re.MULTILINE)
        for m in world.recipients.messages(count, within)
    )
    return [int(found[1]) for found in subjects if found]


def metric(platform: Platform, tenant: str, name: str) -> float:
    address = platform.node.get("pod", f"{tenant}-relay-0", "-n", RELAYS)["status"]["podIP"]
    with urllib.request.urlopen(f"http://{address}:9090/metrics", timeout=30) as answer:
        found = re.search(rf"^{name}(?:{{.*}})? (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found, name
    return float(found[1])
