"""The base image of our own is kept while its script stays the same."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from images import debian, trees
from vl3.system import retry


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be run; each run fails."""
    made: list[Any] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        assert check
        made.append(command)
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(debian.subprocess, "run", run)
    monkeypatch.setattr(retry.time, "sleep", made.append)
    return made


def test_an_image_of_the_present_script_is_kept(monkeypatch: pytest.MonkeyPatch, calls: list[Any]) -> None:
    script = Path(debian.__file__).parent / "debian-base.sh"
    written = hashlib.sha256(script.read_bytes()).hexdigest()  # as the script's own `sha256sum` says
    monkeypatch.setattr(debian, "image_labels", lambda name: {"vl3.dev/content": written})
    debian.ensure_debian()
    assert calls == []


@pytest.mark.parametrize("labels", [{}, {"vl3.dev/content": "of a former script"}])
def test_another_one_is_made_anew_and_a_failure_tried_three_times(
    monkeypatch: pytest.MonkeyPatch, calls: list[Any], labels: dict[str, str]
) -> None:
    monkeypatch.setattr(debian, "image_labels", lambda name: labels)
    with pytest.raises(
        trees.ImageBuildError, match=r"debian-base.sh failed three times \(see above\), so there is no base image"
    ):
        debian.ensure_debian()
    commands = [call for call in calls if isinstance(call, list)]
    assert [command[1:] for command in commands] == [["vl3/debian-python:bookworm", "vl3/debian-compiler:bookworm"]] * 3
    first, second = [call for call in calls if not isinstance(call, list)]
    assert 5 <= first <= 10 <= second <= 20
