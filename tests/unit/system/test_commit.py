"""The commit of the code: from the checkout that holds it, from the image, or none; never an error."""

import os
import subprocess
from pathlib import Path

import pytest

from vl3.system.commit import code_commit


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a checkout with one commit."""
    folder = tmp_path / "checkout" / "src" / "vl3"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", "-C", str(tmp_path / "checkout"), *command], check=True)
    return folder


def head(package: Path) -> str:
    command = ["git", "-C", str(package), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def environment(**variables: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **variables}


def test_commit_of_the_checkout_whatever_the_environment_says(package: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    found = code_commit(
        environment(VL3_COMMIT="image", GIT_DIR=str(tmp_path / "other"), GIT_CEILING_DIRECTORIES="/"), package=package
    )
    assert found == head(package)
    assert len(found) == 40


def test_changed_files_are_said(package: Path) -> None:
    (package / "notes.txt").write_text("")
    (package.parents[1] / "script.py").write_text("")
    assert code_commit(environment(), package=package) == head(package), "what git does not know and vl3 does not run"
    (package / "deeper").mkdir()
    (package / "deeper" / "stray.py").write_text("")
    assert code_commit(environment(), package=package) == f"{head(package)}-dirty", "a module that may be imported"
    (package / "deeper" / "stray.py").unlink()
    (package / "__init__.py").write_text("x = 1\n")
    assert code_commit(environment(), package=package) == f"{head(package)}-dirty"


def test_a_checkout_of_something_else_is_not_ours(package: Path) -> None:
    installed = package.parents[1] / ".venv" / "vl3"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert code_commit(environment(VL3_COMMIT="abc"), package=installed) == "abc"


def test_without_a_checkout_the_image_says_it(tmp_path: Path) -> None:
    assert code_commit(environment(VL3_COMMIT="abc"), package=tmp_path) == "abc"
    assert code_commit(environment(VL3_COMMIT=""), package=tmp_path) == "unknown"


def test_without_git_it_is_unknown(package: Path, tmp_path: Path) -> None:
    assert code_commit({"PATH": str(tmp_path)}, package=package) == "unknown"


def test_a_git_that_hangs_is_not_waited_for(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr("vl3.system.commit._PATIENCE_SECONDS", 0.2)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert code_commit(dict(os.environ), package=package) == "unknown"
