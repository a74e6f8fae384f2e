"""Mount paths become local folders wherever a pod's spec names them, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from malote_dev.processnode.paths import enclosing, rewriter

MOUNTS = {"/etc/malote": Path("/n/conf"), "/etc/malote/keys": Path("/n/keys"), "/var/spool/malote/": Path("/n/spool")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/etc/malote", "/n/conf"),
        ("/etc/malote/", "/n/conf/"),
        ("--config=/etc/malote/relay.json", "--config=/n/conf/relay.json"),
        ("/etc/malote/keys/a.pem", "/n/keys/a.pem"),
        ("/var/spool/malote/db", "/n/spool/db"),
        ("cat '/etc/malote/x' >/var/spool/malote/y", "cat '/n/conf/x' >/n/spool/y"),
        ("/etc/malote:/var/spool/malote", "/n/conf:/n/spool"),
        ("file:///etc/malote/x", "file:///n/conf/x"),
    ],
)
def test_a_mount_path_is_rewritten_as_a_whole(text: str, expected: str) -> None:
    assert rewriter(MOUNTS)(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "/etc/malote-old",
        "/etc/malote.d/x",
        "/opt/etc/malote",
        "./etc/malote",
        "http://host/etc/malote",
        "/etc",
        "malote",
    ],
)
def test_what_only_looks_like_a_mount_path_stays(text: str) -> None:
    assert rewriter(MOUNTS)(text) == text


def test_a_folder_that_only_encloses_mounts_is_rewritten_alone() -> None:
    mounts = {"/etc/malote/config": Path("/n/conf"), "/etc/malote/tls": Path("/n/tls"), "/data": Path("/n/data")}
    assert enclosing(mounts) == {"/etc/malote": {"config": Path("/n/conf"), "tls": Path("/n/tls")}}
    rewrite = rewriter(mounts, {"/etc/malote": Path("/n/root/etc/malote")})
    assert rewrite("--config /etc/malote --x=/etc/malote/") == "--config /n/root/etc/malote --x=/n/root/etc/malote/"
    assert rewrite("/etc/malote/config/relay.json") == "/n/conf/relay.json"
    assert rewrite("/etc/malote/elsewhere") == "/etc/malote/elsewhere"


def test_what_was_rewritten_is_not_rewritten_again() -> None:
    assert rewriter({"/a": Path("/b/x"), "/b": Path("/c")})("/a /b") == "/b/x /c"


def test_without_mounts_nothing_changes() -> None:
    assert rewriter({})("/etc/malote") == "/etc/malote"
