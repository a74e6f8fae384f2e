"""A change of configuration, keys or certificate, while clients are connected."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.relay.running import ask, readiness

from malote_relay.config import (
    CERTIFICATE_FILE,
    CONFIG_FILE,
    CREDENTIALS_DIRECTORY,
    KEYS_DIRECTORY,
    DkimKey,
    Domain,
    OutgoingTls,
    SmartHost,
    configuration_hash,
    encode,
)
from malote_relay.delivery.peer import Login


async def shown(relay: Any, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait for a readiness of which this holds."""
    for _ in range(600):
        answer = await readiness(relay)
        if holds(answer):
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError(f"the last answer was {answer}")


async def until(relay: Any, **expected: Any) -> dict[str, Any]:
    """Wait for a readiness with these values."""
    return await shown(relay, lambda answer: expected.items() <= answer.items())


async def error_shown(relay: Any, words: str) -> dict[str, Any]:
    """Wait for a configuration error with these words in it."""
    return await shown(relay, lambda answer: words in answer.get("configError", ""))


@pytest.mark.parametrize("processes", [0, 2])
async def test_an_account_that_is_deleted_while_its_message_comes_in_is_not_taken_from(
    start: Callable[[], Any], site: Any, compose: Any, processes: int
) -> None:
    site.change(listen={"processes": processes})
    relay = await start()
    dialogue = await relay.at_data()
    dialogue.send(compose())
    site.change(accounts=site.config.accounts[1:])
    await until(relay, configHash=configuration_hash(encode(site.config)))
    assert (await dialogue.say(b".\r\n")) == "550 5.7.1 the account app@acme does not exist any more"
    assert await relay.stored() == 0


async def test_the_hash_in_force_is_told(relay: Any, site: Any) -> None:
    text = (site.directory / CONFIG_FILE).read_bytes()
    assert await readiness(relay) == {"ready": True, "configHash": configuration_hash(text), "submissionOpen": True}


async def test_a_change_is_in_force_within_a_second_for_a_session_that_is_open(relay: Any, site: Any) -> None:
    dialogue = await relay.signed_in()
    site.change(submission={"open": False, "reason": "closed for a test"})
    await until(relay, configHash=configuration_hash(encode(site.config)), submissionOpen=False)
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")) == (
        "550 5.7.1 sending is not open yet: closed for a test"
    )
    site.change(submission={"open": True})
    await until(relay, submissionOpen=True)
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250")


async def test_a_message_under_way_survives_a_reload(relay: Any, site: Any, world: Any) -> None:
    dialogue = await relay.at_data()
    dialogue.send(b"From: ana@acme.example\r\n\r\nfirst half\r\n")
    site.change(delivery={"helo_name": "renamed.smtp.example"})
    await until(relay, configHash=configuration_hash(encode(site.config)))
    assert (await dialogue.say("second half\r\n.")).startswith("250 2.0.0")
    [arrived] = await world.mx.wait_for(1)
    assert b"by renamed.smtp.example with" in arrived.content


async def test_an_account_suspended_while_its_message_comes_in_is_refused(relay: Any, site: Any) -> None:
    dialogue = await relay.at_data()
    accounts = [msgspec.structs.replace(one, suspended=True) for one in site.config.accounts]
    site.change(accounts=tuple(accounts))
    await until(relay, configHash=configuration_hash(encode(site.config)))
    assert (await dialogue.say("From: ana@acme.example\r\n\r\nx\r\n.")).startswith("550 5.7.1 the account")
    assert relay.reserved() == 0


async def test_a_password_that_was_changed_ends_what_the_old_one_opened(relay: Any, site: Any) -> None:
    from malote_relay import passwords

    dialogue = await relay.signed_in()
    accounts = [msgspec.structs.replace(one, verifier=passwords.verifier("new")) for one in site.config.accounts]
    site.change(accounts=tuple(accounts))
    await until(relay, configHash=configuration_hash(encode(site.config)))
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("530 5.7.0 the credentials")


async def test_a_new_certificate_serves_the_next_handshake_on_both_ports(
    relay: Any, site: Any, eventually: Any
) -> None:
    async def certificate(port: int) -> bytes:
        context = site.client_context()
        if port == relay.relay.server.submissions_port:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="acme.smtp.example"
            )
        else:
            writer = (await relay.secure()).writer
        presented = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return ssl.DER_cert_to_PEM_cert(presented).encode()

    ports = (relay.relay.server.submission_port, relay.relay.server.submissions_port)
    before = [await certificate(port) for port in ports]
    assert before[0] == before[1]
    open_since_before = await relay.signed_in()
    context = relay.relay.server._context
    renewed = site.renew_certificate()
    await eventually(lambda: relay.relay.server._context is not context)
    assert [await certificate(port) for port in ports] == [renewed, renewed]
    assert (await open_since_before.say("NOOP")).startswith("250")


async def test_a_certificate_that_cannot_be_used_holds_no_suspension_up(relay: Any, site: Any) -> None:
    site.replace(CERTIFICATE_FILE, b"no certificate")
    site.change(submission={"open": False, "reason": "sending is suspended"})
    answer = await until(relay, configHash=configuration_hash(encode(site.config)), submissionOpen=False)
    assert "tls.crt" in answer["configError"]
    client = await relay.signed_in()  # over TLS, with the certificate that was there before
    assert (await client.say("MAIL FROM:<ana@acme.example>")).startswith("550 5.7.1")
    site.renew_certificate()
    await shown(relay, lambda answer: "configError" not in answer)


async def test_a_configuration_that_cannot_be_used_leaves_the_old_one_in_force(
    relay: Any, site: Any, compose: Any, eventually: Any
) -> None:
    good = await readiness(relay)
    site.replace(CONFIG_FILE, b'{"tenant": "acme", "plam": {}}')
    answer = await error_shown(relay, "plam")
    assert answer["configHash"] == good["configHash"]
    assert relay.counted("malote_config_errors_total") == 1
    assert (await relay.send(compose())).accepted
    site.write()
    await eventually(lambda: not relay.relay._watcher.error)
    assert "configError" not in await readiness(relay)


async def test_a_key_that_is_named_but_missing_holds_the_change_back_until_it_comes(
    relay: Any, site: Any, world: Any
) -> None:
    before = (await readiness(relay))["configHash"]
    key = DkimKey(selector=world.key.selector, file="late.pem")
    site.change(domains=(*site.config.domains, Domain(name="late.example", sending=True, keys=(key,))))
    assert (await error_shown(relay, "late.pem"))["configHash"] == before
    site.replace(KEYS_DIRECTORY / "late.pem", world.key.pem)
    await until(relay, configHash=configuration_hash(encode(site.config)))


async def test_a_smart_hosts_new_password_is_used_without_a_restart(relay: Any, site: Any, eventually: Any) -> None:
    delivery = site.config.delivery
    smart = SmartHost(host="smart.example", port=2525, username="relay", password_file="smart")
    site.change(delivery=msgspec.structs.replace(delivery, smart_host=smart))
    await error_shown(relay, "credentials/smart cannot be read")
    for password in ("first", "second"):
        site.replace(CREDENTIALS_DIRECTORY / "smart", password.encode() + b"\n")
        await eventually(lambda new=password: relay.relay._loaded.credentials.get("smart") == new)
        assert relay.relay._scheduler._pool._identity.login == Login("relay", password)
        assert password not in repr(relay.relay._scheduler._pool._identity)


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff", b"x" * 256])
async def test_a_password_file_that_is_none_is_told_and_holds_no_suspension_up(
    relay: Any, site: Any, content: bytes | None
) -> None:
    if content is not None:
        site.replace(CREDENTIALS_DIRECTORY / "smart", content)
    smart = SmartHost(host="smart.example", username="relay", password_file="smart")
    site.change(
        delivery=msgspec.structs.replace(site.config.delivery, smart_host=smart),
        submission={"open": False, "reason": "sending is suspended"},
    )
    said = await until(relay, configHash=configuration_hash(encode(site.config)), submissionOpen=False)
    assert "credentials/smart" in said["configError"]
    assert "lines" not in said["configError"]
    assert relay.relay._scheduler._pool._identity.login == Login("relay", "")
    client = await relay.signed_in()
    assert (await client.say("MAIL FROM:<ana@acme.example>")).startswith("550 5.7.1")


async def test_a_password_that_goes_away_leaves_the_one_in_force(relay: Any, site: Any, eventually: Any) -> None:
    smart = SmartHost(host="smart.example", username="relay", password_file="smart")
    site.replace(CREDENTIALS_DIRECTORY / "smart", b"first")
    site.change(delivery=msgspec.structs.replace(site.config.delivery, smart_host=smart))
    await until(relay, configHash=configuration_hash(encode(site.config)))
    (site.directory / CREDENTIALS_DIRECTORY / "smart").unlink()
    site.change(submission={"open": False, "reason": "sending is suspended"})
    await until(relay, configHash=configuration_hash(encode(site.config)), submissionOpen=False)
    assert relay.relay._scheduler._pool._identity.login == Login("relay", "first")
    await error_shown(relay, "credentials/smart cannot be read")
    site.replace(CREDENTIALS_DIRECTORY / "smart", b"second")
    await eventually(lambda: not relay.relay._watcher.error)
    assert relay.relay._scheduler._pool._identity.login == Login("relay", "second")


async def test_a_relay_starts_without_a_password_and_says_that_it_is_missing(
    start: Callable[[], Any], site: Any
) -> None:
    smart = SmartHost(host="smart.example", username="relay", password_file="smart")
    site.change(delivery=msgspec.structs.replace(site.config.delivery, smart_host=smart))
    relay = await start()
    answer = await until(relay, ready=True, configHash=configuration_hash(encode(site.config)))
    assert "credentials/smart cannot be read" in answer["configError"]
    assert relay.counted("malote_config_error") == 1


@pytest.mark.parametrize("content", [None, b"nonsense"])
async def test_authorities_that_cannot_be_read_leave_the_old_configuration_in_force(
    relay: Any, site: Any, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_bytes(content)
    tls = OutgoingTls(authorities=str(file))
    site.change(delivery=msgspec.structs.replace(site.config.delivery, tls=tls))
    await error_shown(relay, "delivery.tls.authorities: ")


async def test_the_swap_of_a_mounted_secrets_symlink_is_seen(
    site: Any, world: Any, start: Callable[[], Any], tmp_path: Path
) -> None:
    place = site.directory / "config"
    first, second = place / "..1", place / "..2"
    first.mkdir()
    (place / "relay.json").rename(first / "relay.json")
    (place / "..data").symlink_to("..1")
    (place / "relay.json").symlink_to("..data/relay.json")
    relay = await start()
    second.mkdir()
    text = encode(msgspec.structs.replace(site.config, hostname="swapped.smtp.example"))
    (second / "relay.json").write_bytes(text)
    (place / "..data_tmp").symlink_to("..2")
    os.replace(place / "..data_tmp", place / "..data")
    await until(relay, configHash=configuration_hash(text))


# The observe port.


async def test_metrics_are_served_and_nothing_else_is(
    start: Callable[[], Any], site: Any, world: Any, compose: Any
) -> None:
    site.begin_an_hour()
    relay = await start()
    await relay.send(compose())
    await world.mx.wait_for(1)
    status, text = await ask(relay, "/metrics")
    assert status == 200
    for line in (
        b'malote_messages_accepted_total{account="app"} 1.0',
        b"malote_hour_charged 1.0",
        b'malote_queue_messages{state="held"} 0.0',
        b"malote_dkim_key_age_days ",
        b"process_resident_memory_bytes ",
    ):
        assert line in text
    assert (await ask(relay, "/config"))[0] == 404


async def test_health_fails_when_the_event_loop_does_not_turn(relay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await ask(relay, "/healthz"))[0] == 200
    relay.relay._heartbeat.stop()
    monkeypatch.setattr(relay.relay._heartbeat, "_last", relay.relay._heartbeat._last - 11)
    assert (await ask(relay, "/healthz"))[0] == 503


async def test_a_relay_that_is_stopping_is_not_ready(relay: Any) -> None:
    relay.relay.server._stopping = True
    assert (await ask(relay, "/readyz"))[0] == 503
