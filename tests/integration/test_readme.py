"""What the README tells people to type does what it says."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml
from tests.integration.conftest import Kubectl

from malote_dev.toolchain import Toolchain

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def documents() -> list[dict[str, Any]]:
    return [document for block in blocks("yaml") for document in yaml.safe_load_all(block)]


def test_its_helm_arguments_give_the_settings_they_name(toolchain: Toolchain) -> None:
    (command,) = re.findall(r"^\$ (helm install .*?[^\\])$", "\n".join(blocks("console")), re.MULTILINE | re.DOTALL)
    words = shlex.split(command.replace("\\\n", " "))
    words[1:2] = ["template"]
    words.remove("--wait")
    rendered = subprocess.run(
        [str(toolchain["helm"]), *words[1:], "--kube-version", "1.34.4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert rendered.returncode == 0, rendered.stderr
    config = next(
        item
        for item in yaml.safe_load_all(rendered.stdout)
        if item and item["kind"] == "ConfigMap" and item["metadata"]["name"] == "malote-operator-settings"
    )
    settings = yaml.safe_load(config["data"]["settings.yaml"])
    assert settings["endpoint"]["hostTemplate"] == "{tenant}.smtp.example.net"
    assert settings["egress"]["heloTemplate"] == "{tenant}.out.example.net"
    assert settings["image"]["reference"].startswith("registry.example/malote:")


def test_its_manifests_are_right(kubectl: Kubectl, namespace: str) -> None:
    kubectl.serve(ROOT / "crds")
    found = documents()
    assert [document["kind"] for document in found] == ["Plan", "Tenant", "SendingDomain"]
    found[2]["metadata"]["namespace"] = namespace
    kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(found))
