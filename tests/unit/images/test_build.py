"""What is built, in which order, and what is said where it cannot be."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from images import build, docker, trees
from images.roles import ROLES, with_parents


def test_parents_are_built_before_those_that_stand_on_them() -> None:
    assert [role.name for role in with_parents(["evaluator", "launcher"])] == [
        "base", "torch", "evaluator", "launcher"
    ]  # fmt: skip
    assert [role.name for role in with_parents([])] == list(ROLES)


def test_unknown_role_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["images.build", "trainr"])
    with pytest.raises(SystemExit, match="2"):
        build.main()
    assert "unknown images: trainr; choose from base, torch, trainer" in capsys.readouterr().err


def test_missing_docker_is_said_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["images.build"])
    monkeypatch.setattr(docker.shutil, "which", lambda name: None)
    assert build.main() == 2
    assert capsys.readouterr().err == (
        "[images] docker is missing. Install it (Debian: apt-get install docker.io) and start again.\n"
    )


def test_silent_daemon_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker.shutil, "which", lambda name: "/usr/bin/docker")
    answer = subprocess.CompletedProcess([], 1, "", "Cannot connect to the Docker daemon at unix:///run/docker.sock.")
    monkeypatch.setattr(docker.subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(trees.ImageBuildError, match=r"no Docker daemon answers: Cannot connect .* Start dockerd"):
        docker.require_docker()


def test_base_image_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASE_IMAGE", "registry.example/python:3.11")
    monkeypatch.setattr(build, "inspect_image", lambda name: None)
    monkeypatch.setattr(build.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1))
    with pytest.raises(trees.ImageBuildError, match=r"BASE_IMAGE=registry.example/python:3.11 is not in Docker and"):
        build.find_base_image()


def test_content_depends_on_files_and_parent_and_on_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    labels: dict[str, str] = {"vl3.dev/content": "one"}
    facts: dict[str, Any] = {"Id": "sha256:1", "Config": {"Labels": labels}}
    monkeypatch.setattr(build, "inspect_image", lambda name: facts)
    monkeypatch.setattr(build, "image_labels", lambda name: labels)
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM scratch\n")
    parts = {"Dockerfile": dockerfile}
    first = build.content_of(parts, "parent")
    facts["Id"] = "sha256:2"  # the same content, built again
    assert build.content_of(parts, "parent") == first
    labels["vl3.dev/content"] = "two"
    assert build.content_of(parts, "parent") != first
    labels["vl3.dev/content"] = "one"
    dockerfile.write_text("FROM scratch\nUSER 1\n")
    assert build.content_of(parts, "parent") != first


def test_a_wrong_interpreter_is_refused_before_it_writes_bytecode(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trees, "PYTHON_VERSION", "3.99")
    with pytest.raises(trees.ImageBuildError, match=r"bytecode of Python 3\.99\. Make \.venv with that version"):
        trees._compile(tmp_path)
    assert not list(tmp_path.iterdir())


def test_finished_tree_is_trimmed_compiled_and_marked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trees, "TREES", tmp_path)
    site_packages = tmp_path / "x-libraries" / trees.SITE_PACKAGES
    (site_packages / "lib" / "tests").mkdir(parents=True)
    (site_packages / "lib" / "tests" / "test_a.py").write_text("")
    (site_packages / "lib" / "__init__.py").write_text("here = __file__\n")
    (site_packages / "lib-1.dist-info").mkdir()
    (site_packages / "lib-1.dist-info" / "direct_url.json").write_text("{}")
    trees._finish(tmp_path / "x-libraries", ["*/tests", "*.dist-info/direct_url.json"], "key", "made from")
    left = sorted(path.name for path in site_packages.rglob("*") if path.is_file())
    assert left == ["__init__.cpython-311.pyc", "__init__.py"]
    bytecode = next(site_packages.rglob("*.pyc")).read_bytes()
    assert b"/opt/vl3/lib/python3.11/site-packages/lib/__init__.py" in bytecode
    assert str(tmp_path).encode() not in bytecode
    assert trees._is_finished(tmp_path / "x-libraries", "key")
    assert not trees._is_finished(tmp_path / "x-libraries", "other key")
    content = trees.tree_content(tmp_path / "x-libraries")
    trees._finish(tmp_path / "x-libraries", ["nothing-like-this"], "another key", "made from")
    assert trees.tree_content(tmp_path / "x-libraries") == content


def test_missing_uv_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trees, "uv_program", lambda: str(tmp_path / "uv"))
    with pytest.raises(trees.ImageBuildError, match=r"uv is missing\. Install it \(pip install uv\) and start again"):
        trees._install(tmp_path, "--no-deps", reason="the libraries of trainer")
