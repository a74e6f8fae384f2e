"""From the chart's values to the operator's settings, and what is refused on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.chart.conftest import Chart

from malote_operator import settings


def settings_of(documents: list[dict[str, Any]]) -> settings.Settings:
    (found,) = [
        d for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["name"] == "malote-operator-settings"
    ]
    return msgspec.yaml.decode(found["data"]["settings.yaml"], type=settings.Settings)


class TestSettings:
    def test_the_charts_defaults_are_the_operators(self, chart: Chart) -> None:
        assert settings_of(chart.render()) == settings.Settings()

    def test_every_setting_can_be_given(self, chart: Chart, tmp_path: Path) -> None:
        """Each field gets a value that is not its default, and the operator reads that very value."""
        given: dict[str, Any] = {
            "image": {
                "repository": "registry.example/malote",
                "tag": "1",
                "pullPolicy": "Always",
                "pullSecrets": ["s"],
            },
            "relayNamespace": {"name": "relays"},
            "endpoint": {"hostTemplate": "{tenant}.mail.test", "submissionPort": 1587, "submissionsPort": 1465},
            "dns": {
                "spfInclude": "spf.test",
                "dkimZone": "dkim.test",
                "dmarcPolicy": "v=DMARC1; p=reject",
                "nameservers": ["192.0.2.53"],
                "port": 5353,
                "allowNetworks": ["127.0.0.0/8"],
                "timeout": 1,
                "pendingRecheck": 2,
                "verifiedRecheck": 3,
                "gracePeriod": 4,
            },
            "egress": {
                "heloTemplate": "out.test",
                "sourceAddress": "2001:db8::1",
                "smtpPort": 2525,
                "allowNetworks": ["::1/128"],
            },
            "tls": {"mode": "CertManager", "secretName": "s", "issuerName": "i", "issuerKind": "Issuer"},
            "relay": {
                "resources": {"limits": {"memory": "1Gi"}},
                "storageClassName": "fast",
                "nameservers": ["192.0.2.54"],
                "dnsPort": 5354,
                "serviceType": "LoadBalancer",
                "serviceAnnotations": {"a": "b"},
                "config": {"limits": {"maxBodyBytesInFlight": 1_073_741_824}, "listen": {"processes": 2}},
                "credentialsSecret": "passwords",
                "keysSecret": "shared-keys",
                "nodeSelector": {"mail": "yes"},
                "terminationGraceSeconds": 30,
            },
            "operator": {"workers": 3, "resyncSeconds": 60},
            "notices": {
                "host": "mail.platform.example",
                "port": 465,
                "security": "TLS",
                "username": "malote",
                "fromAddress": "post@platform.example",
                "passwordSecret": {"name": "mail-password"},
            },
            "bounces": {"enabled": True, "port": 2525, "gracePeriod": 600},
            "rehearsal": {"clockOffsetSeconds": 3600},
        }
        values = tmp_path / "values.yaml"
        values.write_text(json.dumps(given))
        read = msgspec.to_builtins(settings_of(chart.render("-f", str(values))))
        defaults = msgspec.to_builtins(settings.Settings())
        # A dictionary with defaults of the chart's is merged by helm, as helm does.
        same = [path for path, value in leaves(read) if dict(leaves(defaults)).get(path) == value]
        # The password's file is named to the operator by its environment, as a mount path is where it is mounted.
        assert [p for p in same if not p.startswith(("relay.resources", "notices.passwordFile"))] == []
        assert read["image"]["reference"] == "registry.example/malote:1"
        assert read["rehearsal"]["clockOffsetSeconds"] == 3600
        assert read["relay"]["config"] == given["relay"]["config"]

    def test_a_changed_setting_starts_new_pods(self, chart: Chart) -> None:
        def checksum(*options: str) -> str:
            (found,) = [d for d in chart.render(*options) if d["kind"] == "Deployment"]
            return str(found["spec"]["template"]["metadata"]["annotations"]["checksum/settings"])

        assert checksum() == checksum()
        assert checksum() != checksum("--set", "rehearsal.clockOffsetSeconds=1")

    def test_the_notices_password_is_mounted_where_the_operator_is_told(self, chart: Chart) -> None:
        options = ("--set", "notices.passwordSecret.name=mail,notices.passwordSecret.key=token")
        documents = chart.render(*options)
        (pod,) = [d["spec"]["template"]["spec"] for d in documents if d["kind"] == "Deployment"]
        env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
        (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "notices"]
        (volume,) = [v for v in pod["volumes"] if v["name"] == "notices"]
        assert volume["secret"] == {"secretName": "mail", "items": [{"key": "token", "path": "password"}]}
        assert env["MALOTE_NOTICES_PASSWORD_FILE"] == f"{mount['mountPath']}/password"

    def test_a_digest_wins_over_the_tag(self, chart: Chart) -> None:
        digest = "sha256:" + "0" * 64
        assert settings_of(chart.render("--set", f"image.digest={digest}")).image.reference == f"malote@{digest}"


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in leaves(part, f"{path}.{key}".lstrip("."))]
    return [(path, json.dumps(value))]


class TestRefusedValues:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ("dns.spfIncude=x", "additional properties 'spfIncude' not allowed"),
            ("tls.mode=operator", "must be one of 'Operator', 'Secret', 'CertManager'"),
            ("dns.gracePeriod=72h", "at '/dns/gracePeriod': got string, want number"),
            ("dns.port=70000", "at '/dns/port': maximum: got 70,000, want 65,535"),
            ("operator.replicas=0", "at '/operator/replicas': minimum: got 0, want 1"),
            ("operator.workers=0", "at '/operator/workers': minimum: got 0, want 1"),
            ("egress.allowNetworks={10.0.0.0}", "write a network in CIDR form, such as 10.0.0.0/8"),
            ("dns.nameservers={resolver}", "write an IPv4 or IPv6 address, such as 192.0.2.53"),
            ("endpoint.hostTemplate=smtp.example.net", "write a host name with {tenant} in it"),
            ("endpoint.hostTemplate=x\\{tenant\\}.Example.net.", "write a host name in lower case"),
            ("egress.heloTemplate=out_1.example.net", "write a host name in lower case, without underscores"),
            ("endpoint.submissionPort=465", "endpoint.submissionsPort are both 465: write two ports"),
            (
                "tls.mode=Secret",
                "name the Secret of type kubernetes.io/tls in namespace malote-relays in tls.secretName",
            ),
            ("tls.mode=CertManager", "name the issuer in tls.issuerName"),
            ("relay.config.delivry.maxConnections=5", "additional properties 'delivry' not allowed"),
            ("bounces.enabled=true,bounces.port=587", "write 25, or another port that leads to it"),
            ("notices.host=mail.test", "write the address that notices come from in notices.fromAddress"),
            ("notices.username=malote", "in namespace malote-system, in notices.passwordSecret.name"),
            ("relayNamespace.name=malote-system", "relays need one of their own, such as malote-relays"),
            ("dns.dmarcPolicy=p=none", "write a DMARC record, such as v=DMARC1; p=none"),
            ("image.digest=sha256:1", "write sha256: and 64 hexadecimal digits"),
        ],
    )
    def test_a_wrong_value_is_refused_with_what_to_write(self, chart: Chart, given: str, says: str) -> None:
        assert says in chart.refusal("--set", given)
