"""What an image is built from decides whether it is built again."""

from __future__ import annotations

from pathlib import Path

import pytest

from malote_dev.realnode.images import base_name, contents_key

ROOT = Path(__file__).resolve().parents[4]


def test_the_base_is_the_dockerfiles_own() -> None:
    assert base_name((ROOT / "Dockerfile").read_text()) == "docker.io/library/python:3.11-slim-bookworm"


def test_a_dockerfile_without_a_base_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="ARG BASE"):
        base_name("FROM scratch\n")


def test_a_changed_added_or_renamed_file_makes_another_image(tmp_path: Path) -> None:
    package = tmp_path / "operator"
    package.mkdir()
    (package / "a.py").write_text("1")
    seen = [contents_key(tmp_path, [package])]
    (package / "a.py").write_text("2")
    seen.append(contents_key(tmp_path, [package]))
    (package / "b.py").write_text("2")
    seen.append(contents_key(tmp_path, [package]))
    (package / "b.py").rename(package / "c.py")
    seen.append(contents_key(tmp_path, [package]))
    assert len(set(seen)) == 4


def test_bytecode_and_time_stamps_do_not(tmp_path: Path) -> None:
    package = tmp_path / "operator"
    (package / "__pycache__").mkdir(parents=True)
    (package / "a.py").write_text("1")
    before = contents_key(tmp_path, [package])
    (package / "__pycache__/a.pyc").write_text("x")
    (package / "a.py").touch()
    assert contents_key(tmp_path, [package]) == before
