"""What the relay is told, from what was decided."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.operator.policy import worlds
from tests.unit.operator.policy.tenants import IN_ORDER, decide, verdict
from tests.unit.operator.policy.worlds import KEY, NO_SPF

from malote_operator.render import relay_config
from malote_operator.render.secrets import dkim_key, key_files, read_dkim_key, selector
from malote_operator.settings import Bounces, Egress, Rehearsal, Settings
from malote_operator.settings import Relay as RelaySettings
from malote_relay import config as relay
from malote_relay import passwords

SETTINGS = Settings()
PASSWORDS = {"app": "open-sesame", "news": "second"}


def told(
    decision: Any = None,
    settings: Settings = SETTINGS,
    tenant: Any = None,
    plan: Any = None,
    *,
    return_paths: bool = False,
) -> relay.RelayConfig:
    text = relay_config.render(
        tenant or worlds.tenant(),
        plan or worlds.plan(),
        decision or decide(),
        PASSWORDS,
        settings,
        return_paths=return_paths,
    )
    return relay.decode(text)


def test_an_open_tenant_is_told_open_with_its_domain_and_key() -> None:
    config = told()
    assert config.submission == relay.Submission(open=True, reason="")
    (domain,) = config.domains
    assert (domain.name, domain.sending, domain.refusal) == ("acme.example", True, "")
    assert domain.keys == (relay.DkimKey(selector=KEY.selector, file=f"{KEY.selector}.acme.example.pem"),)
    assert config.hostname == "acme.smtp.example.net"
    assert config.delivery.helo_name == "acme.out.example.net"


def test_a_closed_tenant_is_told_why_and_which_domain_is_refused_with_what_words() -> None:
    config = told(decide(replace(IN_ORDER, domains=(verdict(spf=NO_SPF),))))
    assert config.submission == relay.Submission(open=False, reason="no domain of the tenant is verified yet")
    (domain,) = config.domains
    assert not domain.sending
    assert domain.keys == ()
    assert domain.refusal == "acme.example is not verified: SPF missing"


def test_a_domain_whose_key_is_lost_is_refused_since_the_relay_would_refuse_the_whole_file() -> None:
    decision = decide()
    (lost,) = (replace(one, keys=()) for one in decision.domains)
    (domain,) = told(replace(decision, domains=(lost,))).domains
    assert not domain.sending
    assert domain.refusal == "the DKIM key of acme.example cannot be read"


@pytest.mark.parametrize(("suspend", "frozen"), [(None, False), ({"reason": "Abuse"}, True)])
def test_without_its_plan_a_relay_closes_and_freezes_by_the_plan_that_it_had(suspend: Any, frozen: bool) -> None:
    accounts = [{"name": "app", "suspended": True}, {"name": "other"}]
    tenant = worlds.tenant(suspend=suspend, accounts=accounts) if suspend else worlds.tenant(accounts=accounts)
    before = relay_config.render(
        worlds.tenant(accounts=[{"name": "app"}, {"name": "news"}]),
        worlds.plan(maxAccounts=2, messagesPerHour=700),
        decide(replace(IN_ORDER, plan=worlds.plan(maxAccounts=2)), accounts=[{"name": "app"}, {"name": "news"}]),
        PASSWORDS,
        SETTINGS,
    )
    assert relay.decode(before).submission.open
    decision = decide(replace(IN_ORDER, plan=None), tenant)
    text = relay_config.render_without_plan(tenant, decision, before, SETTINGS)
    assert text is not None
    config = relay.decode(text)
    assert not config.submission.open
    assert config.submission.reason
    assert config.delivery.frozen is frozen
    assert config.plan == relay.decode(before).plan
    (account,) = config.accounts
    assert account.name == "app"
    assert account.suspended
    assert account.verifier == relay.decode(before).accounts[0].verifier
    assert relay_config.render_without_plan(tenant, decision, text, SETTINGS) == text


@pytest.mark.parametrize("previous", [b"", b"{}", b"nonsense"])
def test_without_plan_and_previous_configuration_there_is_nothing_to_go_by(previous: bytes) -> None:
    decision = decide(replace(IN_ORDER, plan=None))
    assert relay_config.render_without_plan(worlds.tenant(), decision, previous, SETTINGS) is None


def test_the_file_holds_verifiers_and_no_password() -> None:
    text = relay_config.render(worlds.tenant(), worlds.plan(), decide(), PASSWORDS, SETTINGS)
    (account,) = relay.decode(text).accounts
    assert account.username == "app@acme"
    assert passwords.matches("open-sesame", account.verifier)
    assert not passwords.matches("second", account.verifier)
    assert b"open-sesame" not in text


def test_rendering_again_gives_the_same_bytes() -> None:
    one, two = (relay_config.render(worlds.tenant(), worlds.plan(), decide(), PASSWORDS, SETTINGS) for _ in range(2))
    assert one == two


def test_equal_passwords_of_two_accounts_have_different_verifiers() -> None:
    assert relay_config.account_verifier("a@acme", "x") != relay_config.account_verifier("b@acme", "x")


def test_the_plans_limits_reach_the_relay() -> None:
    plan = worlds.plan(
        displayName="SMTP I", messagesPerHour=8000, tolerancePercent=5, overLimitReply="Temporary",
        maxMessageBytes=100_000, maxRecipients=7, reportRetentionDays=30,
    )  # fmt: skip
    assert told(plan=plan).plan == relay.Plan(
        name="smtp-1", display_name="SMTP I", messages_per_hour=8000, tolerance_percent=5,
        over_limit_reply=relay.OverLimitReply.TEMPORARY, max_message_bytes=100_000, max_recipients=7,
        report_retention_days=30,
    )  # fmt: skip


def test_the_tenants_wishes_reach_the_relay() -> None:
    tenant = worlds.tenant(
        accounts=[{"name": "app"}, {"name": "news", "class": "Bulk", "suspended": True}],
        senderVerification={"mode": "List", "unknown": "Defer", "senders": ["a@acme.example"]},
        suspend={"reason": "Abuse"},
    )
    plan = worlds.plan(maxAccounts=2)
    config = told(decide(replace(IN_ORDER, plan=plan), tenant), tenant=tenant, plan=plan)
    assert config.delivery.frozen
    assert [(one.name, one.account_class.value, one.suspended) for one in config.accounts] == [
        ("app", "Transactional", False),
        ("news", "Bulk", True),
    ]
    assert config.sender_verification.mode is relay.SenderMode.LIST
    assert config.sender_verification.unknown is relay.UnknownSender.DEFER
    assert config.sender_verification.senders == ("a@acme.example",)


def test_the_platforms_settings_reach_the_relay() -> None:
    settings = Settings(
        egress=Egress(source_address="192.0.2.1", smtp_port=2525, allow_networks=("127.0.0.0/8",)),
        relay=RelaySettings(nameservers=("127.0.0.1",), dns_port=5353),
        rehearsal=Rehearsal(clock_offset_seconds=3600),
    )
    config = told(settings=settings)
    assert (config.delivery.source_address, config.delivery.smtp_port) == ("192.0.2.1", 2525)
    assert config.delivery.allow_networks == ("127.0.0.0/8",)
    assert (config.resolver.nameservers, config.resolver.port) == (("127.0.0.1",), 5353)
    assert config.rehearsal.clock_offset_seconds == 3600


def test_what_all_relays_are_told_alike_stands_beside_what_the_operator_decides() -> None:
    everywhere = {
        "senderVerification": {"heloName": "callout.example.net", "presentTtl": 60},
        "delivery": {"maxConnections": 7, "shaping": {"default": {"connections": 2}}},
        "notices": {"delayAfterSeconds": 0},
        "submission": {"postmaster": "post@platform.example"},
        "signIn": {"maxFailuresPerClient": 5},
        "bounces": {"feedbackNetworks": ["192.0.2.0/24"], "tellSenders": False},
    }
    settings = Settings(relay=RelaySettings(config=everywhere, nameservers=("192.0.2.53",)))
    tenant = worlds.tenant(
        senderVerification={"mode": "Off"}, contact={"email": "ana@acme.example", "language": "pt-BR"}
    )
    config = told(settings=settings, tenant=tenant)
    assert config.sender_verification == relay.SenderVerification(
        mode=relay.SenderMode.OFF, helo_name="callout.example.net", present_ttl=60
    )
    assert (config.delivery.max_connections, config.delivery.helo_name) == (7, "acme.out.example.net")
    assert config.delivery.shaping.default.connections == 2
    assert config.notices == relay.Notices(language=relay.Language.PORTUGUESE, delay_after_seconds=0)
    assert config.submission == relay.Submission(open=True, reason="", postmaster="post@platform.example")
    assert config.sign_in.max_failures_per_client == 5
    assert config.bounces == relay.Bounces(feedback_networks=("192.0.2.0/24",), tell_senders=False)
    assert config.resolver.nameservers == ("192.0.2.53",)


def test_a_tenant_says_how_its_mail_leaves_over_its_plan() -> None:
    plan = worlds.plan(egress={"heloTemplate": "{tenant}.bulk.example.net", "sourceAddress": "192.0.2.2"})
    tenant = worlds.tenant(egress={"sourceAddress": "192.0.2.9", "smartHost": {"host": "acme.example.net"}})
    its = told(tenant=tenant, plan=plan).delivery
    assert (its.helo_name, its.source_address) == ("acme.bulk.example.net", "192.0.2.9")
    assert its.smart_host == relay.SmartHost(host="acme.example.net")


def test_a_plan_says_how_its_tenants_mail_leaves_over_the_platforms_settings() -> None:
    smart = {"host": "smart.example.net", "username": "malote", "passwordFile": "smart-host"}
    settings = Settings(
        egress=Egress(source_address="192.0.2.1"), relay=RelaySettings(config={"delivery": {"smartHost": smart}})
    )
    ours = told(settings=settings).delivery
    assert (ours.helo_name, ours.source_address, ours.socks5) == ("acme.out.example.net", "192.0.2.1", None)
    assert ours.smart_host == relay.SmartHost(host="smart.example.net", username="malote", password_file="smart-host")
    plan = worlds.plan(
        egress={
            "heloTemplate": "{tenant}.bulk.example.net",
            "sourceAddress": "192.0.2.2",
            "smartHost": {"host": "bulk.example.net", "port": 465, "tls": "Implicit"},
            "socks5": {"host": "192.0.2.3", "username": "u", "passwordFile": "proxy"},
        }
    )
    its = told(settings=settings, plan=plan).delivery
    assert (its.helo_name, its.source_address) == ("acme.bulk.example.net", "192.0.2.2")
    assert its.smart_host == relay.SmartHost(host="bulk.example.net", port=465, tls=relay.SmartHostTls.IMPLICIT)
    assert its.socks5 == relay.Socks5(host="192.0.2.3", username="u", password_file="proxy")


def test_without_its_plan_mail_leaves_as_it_did_and_its_bounces_are_still_taken() -> None:
    plan = worlds.plan(egress={"heloTemplate": "bulk.example.net", "socks5": {"host": "192.0.2.3"}})
    before = relay_config.render(worlds.tenant(), plan, decide(), PASSWORDS, SETTINGS, return_paths=True)
    text = relay_config.render_without_plan(worlds.tenant(), decide(replace(IN_ORDER, plan=None)), before, SETTINGS)
    assert text is not None
    assert relay.decode(text).delivery == relay.decode(before).delivery
    assert relay.decode(text).bounces == relay.decode(before).bounces
    assert relay.decode(text).listen.bounce_port == 2525


def test_bounces_are_taken_in_where_there_is_a_secret_and_come_back_by_the_domains_own_host() -> None:
    settings = Settings(bounces=Bounces(enabled=True))
    (returning,) = (replace(one, return_path="bounces.acme.example") for one in decide().domains)
    decision = replace(decide(), domains=(returning,))
    config = told(decision, settings, return_paths=True)
    assert config.listen.bounce_port == 2525
    assert config.bounces.secrets == ("return-paths.secret",)
    assert [one.return_path for one in config.domains] == ["bounces.acme.example"]
    lost = replace(returning, keys=())
    refused = told(replace(decision, domains=(lost,)), settings, return_paths=True)
    assert [(one.sending, one.return_path) for one in refused.domains] == [(False, "bounces.acme.example")]
    without = told(decision, settings)
    assert without.listen.bounce_port is None
    assert without.bounces.secrets == ()
    assert [one.return_path for one in without.domains] == [""]


def test_the_relays_own_key_signs_its_notices_and_stays_without_the_plan() -> None:
    text = relay_config.render(worlds.tenant(), worlds.plan(), decide(), PASSWORDS, SETTINGS, notices_key=KEY)
    keys = relay.decode(text).notices.keys
    assert keys == (relay.DkimKey(selector=KEY.selector, file=f"{KEY.selector}.notices.pem"),)
    assert told().notices.keys == ()
    without = relay_config.render_without_plan(worlds.tenant(), decide(replace(IN_ORDER, plan=None)), text, SETTINGS)
    assert without is not None
    assert relay.decode(without).notices.keys == keys


def test_every_value_that_the_kinds_offer_is_one_the_relay_knows() -> None:
    from malote_operator.api import egress as egress_api
    from malote_operator.api import plan as plan_api
    from malote_operator.api import tenant as tenant_api

    pairs = [
        (plan_api.OverLimitReply, relay.OverLimitReply),
        (tenant_api.AccountClass, relay.AccountClass),
        (tenant_api.SenderMode, relay.SenderMode),
        (tenant_api.UnknownSender, relay.UnknownSender),
        (tenant_api.Language, relay.Language),
        (egress_api.SmartHostTls, relay.SmartHostTls),
    ]
    for offered, known in pairs:
        assert {one.value for one in offered} == {one.value for one in known}


def test_a_domain_named_by_two_objects_is_told_once_and_the_sending_one_wins() -> None:
    sending, refused = verdict(), verdict(spf=NO_SPF)
    decision = decide(replace(IN_ORDER, domains=(refused, sending)))
    (domain,) = told(decision).domains
    assert domain.sending


def test_a_dkim_key_survives_its_secret() -> None:
    secret = dkim_key(worlds.tenant(), worlds.domain(), KEY, b"PEM", SETTINGS)
    assert secret["immutable"] is True
    assert secret["metadata"]["name"] == f"acme-dkim-{KEY.selector}"
    assert read_dkim_key(secret) == ("acme.example", KEY, b"PEM")
    assert key_files([secret]) == {KEY.file_name("acme.example"): b"PEM"}


def test_a_selector_derives_from_its_key() -> None:
    assert selector(b"der") == "m" + hashlib.sha256(b"der").hexdigest()[:12]
