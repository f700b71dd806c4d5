"""vl3 as it is installed from its wheel: complete, and without the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.cli.conftest import REPOSITORY, STAGES
from tests.support.shared import make_once

pytestmark = pytest.mark.timeout(600)
BUILD = """
import sys
from setuptools import build_meta
target = sys.argv[1]  # setuptools replaces the arguments
build_meta.build_wheel(target)
build_meta.build_sdist(target)
"""
# Python imports it at every start, and the interpreter reports each file that anything opens.
WATCH = """
import sys
def report(event, arguments, checkout={checkout!r}, venv={venv!r}, log={log!r}):
    path = arguments[0] if event == "open" else ""
    if isinstance(path, str) and path.startswith(checkout) and not path.startswith(venv):
        with open(log, "a") as file:
            file.write(path + chr(10))
sys.addaudithook(report)
"""
COMMAND = "import sys; from vl3.cli.main import main; sys.exit(main())"


def _tracked() -> list[str]:
    """The files of the checkout that git does not ignore, so that what a build left there has no part in this."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split("\0")
    return [name for name in names if name and (REPOSITORY / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""

    def make(folder: Path) -> None:
        with tarfile.open(folder / "source.tar", "w") as archive:
            for name in _tracked():
                archive.add(REPOSITORY / name, name)
        with tarfile.open(folder / "source.tar") as archive:
            archive.extractall(folder / "source", filter="data")
        command = [sys.executable, "-c", BUILD, str(folder)]
        subprocess.run(command, cwd=folder / "source", check=True, capture_output=True)

    return make_once(tmp_path_factory, "built", make)


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    """The wheel."""
    return zipfile.ZipFile(next(built.glob("*.whl")))


@pytest.fixture
def installed(wheel: zipfile.ZipFile, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds vl3 in the unpacked wheel; `opened` lists what it opens here."""
    site = tmp_path / "site"
    wheel.extractall(site)
    text = WATCH.format(checkout=f"{REPOSITORY}/", venv=f"{sys.prefix}/", log=str(tmp_path / "opened"))
    (site / "sitecustomize.py").write_text(text, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VL3_", "MLFLOW_", "_MLFLOW_"))}
    return kept | {"PYTHONPATH": str(site)}


def _run(arguments: list[str], environment: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_package_and_claims_no_other_name(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    (about,) = {name.partition("/")[0] for name in names} - {"vl3"}
    assert about.endswith(".dist-info")
    assert wheel.read(f"{about}/top_level.txt") == b"vl3\n"
    source = [name.removeprefix("src/") for name in _tracked() if name.startswith("src/vl3/")]
    assert sorted(name for name in names if name.startswith("vl3/")) == sorted(source)


def test_the_wheel_says_its_licence_its_authors_and_where_it_comes_from(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    lines = wheel.read(name).decode().splitlines()
    for line in ("License-Expression: Apache-2.0", "License-File: LICENSE", "License-File: NOTICE"):
        assert line in lines
    assert "Author: The vl3 authors" in lines
    addresses = [line.removeprefix("Project-URL: ") for line in lines if line.startswith("Project-URL: ")]
    assert [address.partition(", ")[0] for address in addresses] == ["Source", "Issues", "Changelog", "Security"]
    assert "Apache License" in wheel.read(name.replace("METADATA", "licenses/LICENSE")).decode()


def test_the_source_distribution_builds_the_same_package(built: Path, wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    with tarfile.open(next(built.glob("vl3-*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    subprocess.run([sys.executable, "-c", BUILD, str(tmp_path)], cwd=folder, check=True, capture_output=True)
    again = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    assert {one.filename: one.CRC for one in again.infolist()} == {one.filename: one.CRC for one in wheel.infolist()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "Train, promote and evaluate"),
        (["recipe", "list"], "tiny\nvl3_2b\nvl3_7b"),
        (["recipe", "show", "vl3_2b"], '"name": "vl3_2b"'),
        (["stages", "table"], "vision_adaptation"),
        (["data", "sample", "--out", "data", "--scale", "0.02", "--heldout", "4"], ""),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_the_commands_work_where_there_is_no_checkout(
    arguments: list[str], said: str, installed: dict[str, str], tmp_path: Path
) -> None:
    done = _run(["-c", COMMAND, *arguments], installed, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
    assert not (tmp_path / "opened").exists(), (tmp_path / "opened").read_text()


@pytest.mark.slow
def test_the_whole_workflow_runs_where_there_is_no_checkout(
    installed: dict[str, str], corpus: Path, tmp_path: Path
) -> None:
    settings = [f"stages.{stage}.steps=1" for stage in STAGES] + ["evaluation.samples_per_task=1"]
    arguments = ["run", "start", "--run", "./run", "--data", str(corpus), *(f"--set={one}" for one in settings)]
    done = _run(["-c", COMMAND, *arguments], installed, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "elsewhere" / "run" / "report" / "report.html").is_file()
    assert not (tmp_path / "opened").exists(), (tmp_path / "opened").read_text()
