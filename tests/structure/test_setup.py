"""Set-up: refuses a bad run before it installs, counts what it installs, and says when its Python will not do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"


def preflight(place: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """As set-up calls it: with a Python that has nothing but its standard library."""
    command = [sys.executable, "-I", "-S", str(SCRIPTS / "preflight.py")]
    return subprocess.run(command, cwd=place, env={**os.environ, **variables}, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"DATA": "gone"}, "gone does not exist. Set DATA (--data) to a folder with annotations/train.jsonl."),
        ({"RUN": "x' ; touch F ; echo '"}, "cannot be the name of a run"),
        ({"DATA": "file:///a#b"}, "Write it as %23"),
    ],
)
def test_a_bad_run_is_refused_before_anything_is_installed(
    variables: dict[str, str], message: str, tmp_path: Path
) -> None:
    done = preflight(tmp_path, **variables)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_good_run_passes(tmp_path: Path) -> None:
    (tmp_path / "my data" / "annotations").mkdir(parents=True)
    (tmp_path / "my data" / "annotations" / "train.jsonl").write_text("{}")
    for variables in ({}, {"RUN": "mine", "DATA": "my data"}, {"RUN": "", "DATA": "s3://bucket/x"}):
        done = preflight(tmp_path, **variables)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_python_that_will_not_do_is_named() -> None:
    environment = {**os.environ, "PYTHON": "/bin/false"}
    command = ["bash", str(SCRIPTS / "setup.sh"), "run-pipeline"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "PYTHON=/bin/false is not a Python 3.11 or newer" in done.stderr


UV = """#!{python}
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
if sys.argv[1:3] == ["cache", "dir"]:
    print(here / "cache")
elif "--dry-run" in sys.argv:
    if "bad" in sys.argv:
        sys.exit("error: no version of bad")
    print("Would download 2 packages\\nWould install 3 packages", file=sys.stderr)
else:
    for name in "ab":
        (here / "cache" / "archive-v0" / name).mkdir(parents=True)
        time.sleep(1)
"""


def test_what_is_installed_is_counted(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text(UV.format(python=sys.executable))
    uv.chmod(0o755)
    command = [sys.executable, str(SCRIPTS / "install.py"), str(uv), sys.executable]
    done = subprocess.run([*command, "good"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "[setup] downloading packages: 2 of 2 (100 %)",
        "[setup] installing packages: 3 of 3 (100 %)",
    ]
    done = subprocess.run([*command, "bad"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: no version of bad"
