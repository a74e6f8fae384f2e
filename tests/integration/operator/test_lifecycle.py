"""From a manifest to a relay that takes mail, and back to nothing."""

from __future__ import annotations

import email
import email.policy
from typing import TYPE_CHECKING

import pytest
from tests.integration.operator.conftest import data

from malote_dev.mailworld.behaviour import ACCEPT, parse
from malote_dev.mailworld.mx import SinkMx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Kubectl, LoopThread
    from tests.integration.operator.conftest import Eventually, Replica, Start, Tenancy

pytestmark = pytest.mark.cluster


def test_a_manifest_becomes_a_relay_credentials_and_records_to_paste(
    operator: Replica, acme: Tenancy, eventually: Eventually
) -> None:
    acme.apply(acme.plan(), acme.tenant(), acme.sending_domain())
    records = eventually(acme.records)  # `make bench-operator` measures how long it takes
    assert [(one["purpose"], one["name"]) for one in records] == [
        ("SPF", acme.domain),
        ("DKIM", records[1]["name"]),
        ("DMARC", f"_dmarc.{acme.domain}"),
    ]
    assert records[1]["value"].startswith("v=DKIM1; k=rsa; p=")
    eventually(lambda: acme.condition("RelayAvailable").get("status") == "True")
    assert acme.status()["accounts"] == [
        {"name": "app", "username": f"app@{acme.name}", "secretName": f"{acme.name}-smtp-app"}
    ]
    secret = acme.child("secret", f"{acme.name}-smtp-app", acme.namespace)
    assert secret["type"] == "servicebinding.io/smtp"
    assert len(data(secret)["password"]) >= 43
    assert data(secret)["host"] == acme.status()["endpoint"]["host"]
    for child in acme.children():
        metadata = child["metadata"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "malote-operator"
        if child["kind"] not in {"Pod", "PersistentVolumeClaim"}:
            assert [owner["kind"] for owner in metadata["ownerReferences"]] == ["Tenant"], child["kind"]
            assert all(entry["manager"] for entry in metadata.get("managedFields", ()))
    eventually(lambda: acme.condition("SubmissionOpen").get("status") == "False")
    assert {one["type"] for one in acme.status()["conditions"]} == {
        *("Ready", "Approved", "Paid", "DomainsVerified", "RelayAvailable", "SubmissionOpen", "AccountsOpen"),
        *("CredentialsSent", "EgressRecordsPublished", "Reconciling", "Stalled"),
    }


def test_published_records_open_submission_and_a_lost_one_shows_but_does_not_stop_mail(
    operator: Replica, acme: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    acme.apply(acme.plan(), acme.tenant(), acme.sending_domain())
    eventually(acme.records)
    eventually(lambda: acme.condition("RelayAvailable").get("status") == "True")
    acme.publish()
    eventually(acme.ready)
    eventually(lambda: acme.condition("Verified", "sendingdomain")["status"] == "True")
    assert acme.condition("SubmissionOpen")["status"] == "True"
    claim = kubectl.json("get", "domainclaim", acme.domain)
    assert claim["spec"]["tenant"] == acme.name
    events = ("get", "events", "-n", "default", "--field-selector", f"involvedObject.name={acme.name}")
    eventually(lambda: "Sending" in kubectl(*events))

    acme.dns.delete(f"_dmarc.{acme.domain}")
    eventually(lambda: acme.reason("sendingdomain") == "GracePeriod")
    assert acme.condition("SubmissionOpen")["status"] == "True"


def test_deletion_leaves_nothing_behind(
    operator: Replica, acme: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    acme.sends(eventually)
    key = next(one for one in acme.children() if "-dkim-" in one["metadata"]["name"])["metadata"]["name"]

    kubectl("delete", "sendingdomain", acme.name, "-n", acme.namespace)
    eventually(lambda: not kubectl("get", "domainclaim", acme.domain, "--ignore-not-found"))
    eventually(lambda: key not in {one["metadata"]["name"] for one in acme.children()})
    eventually(lambda: acme.reason() == "NoDomain")

    kubectl("delete", "tenant", acme.name)
    eventually(lambda: acme.children() == [], within=120)
    eventually(
        lambda: not kubectl("get", "secret", f"{acme.name}-smtp-app", "-n", acme.namespace, "--ignore-not-found")
    )
    eventually(lambda: kubectl.json("get", "plan", acme.name)["status"]["tenants"] == 0)


def test_a_deleted_tenant_takes_its_claims_along_with_its_domains_still_declared(
    operator: Replica, acme: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    acme.sends(eventually)
    kubectl("delete", "tenant", acme.name)
    eventually(lambda: not kubectl("get", "domainclaim", acme.domain, "--ignore-not-found"))
    eventually(lambda: acme.reason("sendingdomain") == "TenantNotFound")


def test_a_plan_change_reaches_the_relay_without_a_restart(
    operator: Replica, acme: Tenancy, eventually: Eventually
) -> None:
    acme.sends(eventually)
    pod = acme.child("pod", f"{acme.name}-relay-0")
    acme.apply(acme.plan(messagesPerHour=5))
    eventually(lambda: '"messagesPerHour": 5' in data(acme.child("secret", f"{acme.name}-relay"))["relay.json"])
    wanted = acme.child("secret", f"{acme.name}-relay")
    eventually(lambda: acme.condition("Reconciling").get("status") == "False" and acme.ready())
    assert acme.child("secret", f"{acme.name}-relay") == wanted
    assert acme.child("pod", f"{acme.name}-relay-0")["metadata"]["uid"] == pod["metadata"]["uid"]


@pytest.fixture
def mail_host(cluster_loop: LoopThread) -> Iterator[SinkMx]:
    """The platform's own mail host."""
    host = SinkMx("127.0.0.1")
    cluster_loop.run(host.start())
    yield host
    cluster_loop.run(host.stop())


def test_the_welcome_mail_goes_out_once_when_submission_opens_and_again_when_asked_for(
    start: Start, acme: Tenancy, mail_host: SinkMx, eventually: Eventually, kubectl: Kubectl
) -> None:
    start.settings["notices"] = {
        "host": "127.0.0.1",
        "port": mail_host.port,
        "security": "None",
        "fromAddress": "post@plat.example",
    }
    replica = start()
    mail_host.behaviour = parse("defer@rcpt")
    acme.apply(acme.plan(), acme.tenant(), acme.sending_domain())
    eventually(acme.records)
    eventually(lambda: acme.condition("CredentialsSent").get("reason") == "Waiting")
    acme.publish()
    eventually(acme.ready)
    eventually(lambda: acme.condition("CredentialsSent")["reason"] == "SendFailed")
    assert "45" in acme.condition("CredentialsSent")["message"], "the host's own words"
    # Ended between sending a mail and remembering it, an operator sends it again: it must have nothing to send.
    assert replica.terminate() == 0
    mail_host.behaviour = ACCEPT
    again = start()
    eventually(lambda: acme.condition("CredentialsSent")["status"] == "True")
    secret = acme.child("secret", f"{acme.name}-smtp-app", acme.namespace)
    sent = email.message_from_bytes(mail_host.messages[0].content, policy=email.policy.default)
    text = sent.get_body(("plain",))
    assert text is not None
    assert data(secret)["password"] in text.get_content()
    assert sent["Content-Language"] == "pt-BR"

    def looks(count: int) -> None:
        before = again.metric("malote_operator_reconcile_seconds_count")
        eventually(lambda: again.metric("malote_operator_reconcile_seconds_count") >= before + count)

    looks(6)  # regular ones
    assert len(mail_host.messages) == 1
    kubectl("annotate", "tenant", acme.name, "malote.dev/resend-welcome=1")
    eventually(lambda: len(mail_host.messages) >= 2)
    looks(6)
    assert len(mail_host.messages) == 2
