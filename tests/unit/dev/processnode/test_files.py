"""Volumes of files: their content, modes, and a swap that no reader sees half done."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from malote_dev.processnode.atomicfiles import FileContent, replace_files
from malote_dev.processnode.payloads import MountError, Sources, references, token_seconds, volume_files

SECRET = {"kind": "Secret", "data": {name: base64.b64encode(name.encode()).decode() for name in ("a", "b")}}
CONFIG = {"kind": "ConfigMap", "data": {"text": "é"}, "binaryData": {"raw": base64.b64encode(b"\xff").decode()}}
POD: dict[str, Any] = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": []}}


async def lookup(kind: str, name: str) -> dict[str, Any] | None:
    return {("Secret", "s"): SECRET, ("ConfigMap", "c"): CONFIG}.get((kind, name))


async def token(audience: str, seconds: int) -> str:
    return f"token for {audience or 'the API server'}, {seconds} s"


async def files(volume: dict[str, Any]) -> dict[str, FileContent]:
    return await volume_files(POD, {"name": "v", **volume}, Sources(lookup, token))


async def test_a_secret_volume_shows_every_key_with_the_default_mode() -> None:
    assert await files({"secret": {"secretName": "s", "defaultMode": 0o400}}) == {
        "a": FileContent(b"a", 0o400),
        "b": FileContent(b"b", 0o400),
    }


async def test_items_choose_keys_paths_and_modes() -> None:
    items = [{"key": "b", "path": "deep/b.txt", "mode": 0o600}]
    assert await files({"secret": {"secretName": "s", "items": items}}) == {"deep/b.txt": FileContent(b"b", 0o600)}


async def test_a_config_map_shows_text_and_binary_data() -> None:
    assert await files({"configMap": {"name": "c"}}) == {
        "text": FileContent("é".encode()),
        "raw": FileContent(b"\xff"),
    }


async def test_a_projected_volume_joins_its_sources() -> None:
    sources = [
        {"secret": {"name": "s", "items": [{"key": "a", "path": "a"}]}},
        {"configMap": {"name": "c", "items": [{"key": "text", "path": "t"}]}},
        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}},
    ]
    volume = {"projected": {"sources": sources, "defaultMode": 0o440}}
    assert {name: file.content for name, file in (await files(volume)).items()} == {
        "a": b"a",
        "t": "é".encode(),
        "ns": b"n",
        "token": b"token for vault, 600 s",
    }
    assert references(volume) == {("Secret", "s"), ("ConfigMap", "c")}
    assert token_seconds(volume) == 600


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"secret": {"secretName": "gone"}}, 'secret "gone" not found'),
        ({"configMap": {"name": "gone"}}, 'configmap "gone" not found'),
        (
            {"secret": {"secretName": "s", "items": [{"key": "z", "path": "z"}]}},
            "references non-existent secret key: z",
        ),
    ],
)
async def test_what_is_missing_is_named(volume: dict[str, Any], message: str) -> None:
    with pytest.raises(MountError, match=message):
        await files(volume)
    kind = next(iter(volume))
    assert await files({kind: {**volume[kind], "optional": True}}) == {}


def shown(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith("..")
    }


def test_files_are_replaced_by_one_rename_of_the_data_link(tmp_path: Path) -> None:
    assert replace_files(tmp_path, {"a": FileContent(b"1", 0o600), "b": FileContent(b"1")})
    old = os.readlink(tmp_path / "..data")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600

    assert replace_files(tmp_path, {"a": FileContent(b"2"), "c": FileContent(b"2")})

    assert shown(tmp_path) == {"a": "2", "c": "2"}
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert os.readlink(tmp_path / "..data") != old
    assert not (tmp_path / old).exists()


def test_nothing_is_touched_when_nothing_changed(tmp_path: Path) -> None:
    content = {"x/a": FileContent(b"1", 0o640)}
    replace_files(tmp_path, content)
    link = os.readlink(tmp_path / "..data")
    assert not replace_files(tmp_path, content)
    assert os.readlink(tmp_path / "..data") == link
    assert replace_files(tmp_path, {"x/a": FileContent(b"1", 0o600)})


def test_a_volume_can_become_empty(tmp_path: Path) -> None:
    replace_files(tmp_path, {"a": FileContent(b"1")})
    assert replace_files(tmp_path, {})
    assert shown(tmp_path) == {}
