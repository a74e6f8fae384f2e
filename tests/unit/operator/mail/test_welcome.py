"""The welcome mail: what is in it, in which language, and what happens when the mail host refuses."""

from __future__ import annotations

import datetime as dt
import socket
from email.message import EmailMessage
from typing import Any

import pytest

from malote_dev.mailworld.behaviour import parse
from malote_dev.mailworld.mx import SinkMx
from malote_operator.api.meta import LocalReference, Metadata
from malote_operator.api.plan import Plan, PlanSpec, Support, SupportChannel
from malote_operator.api.tenant import Account, AccountClass, Contact, Language, Tenant, TenantSpec
from malote_operator.mail.postman import Undeliverable
from malote_operator.mail.transport import Transport
from malote_operator.mail.welcome import WelcomePostman, compose
from malote_operator.policy.model import DomainDecision, TenantDecision
from malote_operator.settings import MailSecurity, Notices, Settings

PLAN = Plan(
    metadata=Metadata(name="smtp-1"),
    spec=PlanSpec(
        display_name="SMTP I",
        messages_per_hour=3000,
        support=Support(channels=(SupportChannel(type="Ticket", hours="8–22", contact="https://help.example"),)),
    ),
)
PASSWORDS = {"app": "s3cret<&>", "news": "other"}
DECISION = TenantDecision(
    conditions=(),
    accounts=(Account(name="app"), Account(name="news", account_class=AccountClass.BULK)),
    domains=(
        DomainDecision(namespace="acme", name="a", uid="1", domain="acme.example", conditions=(), sending=True),
        DomainDecision(namespace="acme", name="b", uid="2", domain="later.example", conditions=()),
    ),
    credential_namespaces=("acme",),
)


def settings(**notices: Any) -> Settings:
    return Settings(
        notices=Notices(
            host="127.0.0.1", security=MailSecurity.NONE, from_address="Malote <post@plat.example>", **notices
        )
    )


def tenant(language: Language = Language.EN, name: str = "Ana", email: str = "ana@acme.example") -> Tenant:
    return Tenant(
        metadata=Metadata(name="acme", uid="u-1"),
        spec=TenantSpec(
            plan_ref=LocalReference(name="smtp-1"), contact=Contact(name=name, email=email, language=language)
        ),
    )


def bodies(message: EmailMessage) -> tuple[str, str]:
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    return text.get_content(), html.get_content()


@pytest.mark.parametrize("language", list(Language))
def test_it_says_everything_that_a_client_must_be_told(language: Language) -> None:
    message = compose(tenant(language), PLAN, DECISION, PASSWORDS, settings(), request="")
    for body in bodies(message):
        for fact in ("acme.smtp.example.net", "587", "STARTTLS", "465", "TLS", "PLAIN", "app@acme", "news@acme"):
            assert fact in body
        assert "SMTP I" in body
        assert "3000" in body
        assert "acme-smtp-app" in body
        assert "acme.example" in body
        assert "later.example" not in body, "not verified yet"
        assert "https://help.example" in body
    text, html = bodies(message)
    assert "s3cret<&>" in text
    assert "s3cret&lt;&amp;&gt;" in html, "a password is text, not markup"
    assert message["To"] == "Ana <ana@acme.example>"
    assert message["From"] == "Malote <post@plat.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Content-Language"] == language.value


def test_the_hour_and_its_unit_are_explained_in_the_tenants_language() -> None:
    english, _ = bodies(compose(tenant(Language.EN), PLAN, DECISION, PASSWORDS, settings(), request=""))
    portuguese, _ = bodies(compose(tenant(Language.PT_BR), PLAN, DECISION, PASSWORDS, settings(), request=""))
    assert "Each recipient that is accepted counts as one message" in english
    assert "Cada destinatário aceito conta como uma mensagem" in portuguese


def test_the_same_mail_sent_twice_has_the_same_id_and_one_asked_for_anew_another() -> None:
    ids = [
        compose(tenant(), PLAN, DECISION, PASSWORDS, settings(), request=request)["Message-ID"]
        for request in ("", "", "again")
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_name_cannot_bring_header_fields_along() -> None:
    message = compose(tenant(name="Ana\r\nBcc: all@acme.example"), PLAN, DECISION, PASSWORDS, settings(), request="")
    assert message["Bcc"] is None


async def test_the_mail_arrives_at_the_tenants_contact() -> None:
    async with SinkMx("127.0.0.1") as host:
        own = settings(port=host.port)
        await WelcomePostman(own, Transport(own.notices)).welcome(tenant(), PLAN, DECISION, PASSWORDS, request="")
        await host.wait_for(1)
        assert list(host.messages[0].recipients) == ["ana@acme.example"]
        assert str(dt.datetime.now(dt.UTC).year).encode() in host.messages[0].content


async def test_a_refusal_says_what_the_host_said() -> None:
    async with SinkMx("127.0.0.1", behaviour=parse("refuse@rcpt")) as host:
        own = settings(port=host.port)
        with pytest.raises(Undeliverable, match=r"ana@acme\.example: 5"):
            await WelcomePostman(own, Transport(own.notices)).welcome(tenant(), PLAN, DECISION, PASSWORDS, request="")


async def test_a_host_that_is_not_there_and_a_bad_address_are_undeliverable_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    own = settings(port=port)
    postman = WelcomePostman(own, Transport(own.notices))
    with pytest.raises(Undeliverable, match=f"127.0.0.1:{port}"):
        await postman.welcome(tenant(), PLAN, DECISION, PASSWORDS, request="")
    with pytest.raises(Undeliverable, match="cannot be written"):
        await postman.welcome(tenant(email="no address"), PLAN, DECISION, PASSWORDS, request="")
