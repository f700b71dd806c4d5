"""The names and folders of runs: what is allowed, what is refused, which runs there are."""

import json
import os
from pathlib import Path

import pytest

from vl3.errors import ConfigError
from vl3.lifeline import runner_mark
from vl3.pipelines.local.folder import find_run, local_runs, new_run_folder, read_run, run_folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_record(folder: Path, **facts: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "run_id": "r",
        "earlier_attempts": [],
        "state": "succeeded",
        "tasks": [],
        "started_at": "2026-01-01",
        **facts,
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_a_name_is_below_runs_and_a_slash_makes_a_path(place: Path) -> None:
    assert run_folder("mine") == place / "runs" / "mine"
    assert run_folder("./mine/") == place / "mine"
    assert run_folder("/a#1/b ü/v1.2_x-3") == Path("/a#1/b ü/v1.2_x-3")


ODD_NAMES = [
    "a?b",
    "a:b",
    "a@b",
    "a&b",
    "a\\b",
    "`x`",
    "*",
    "~",
    "ü",
    "-x",
    ".x",
    "..",
    ".",
    "/",
    "runs/..",
    "runs/a#1",
    "runs/b%20c",
]


@pytest.mark.parametrize(
    "run", [*ODD_NAMES, "a b", "x' ; touch F ; echo '", "$(touch F)", "a\nb", "a\tb", "a\udcff", "x" * 101]
)
def test_other_names_are_refused_with_the_rule(run: str) -> None:
    with pytest.raises(
        ConfigError, match=r"cannot be the name of a run, .* Use up to 100 letters \(a-z, A-Z\), digits"
    ):
        new_run_folder(run)


@pytest.mark.parametrize("run", ["a?b/x", "a%20b/x", "/a\nb/x"])
def test_a_path_that_no_tracking_address_can_have_is_refused(run: str) -> None:
    with pytest.raises(ConfigError, match="has a '\\?', a '%' or a control character"):
        run_folder(run)


def test_a_folder_of_something_else_is_refused(place: Path) -> None:
    (place / "src" / "status").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"src has files and no run.json, so it is not the folder of a run"):
        new_run_folder("./src")
    (place / "file").write_text("")
    for run in ("./file", "./file/run"):
        with pytest.raises(ConfigError, match=f"{place}/file is a file, so {place}/file.* cannot be a run folder"):
            new_run_folder(run)
    (place / "empty").mkdir()
    assert new_run_folder("./empty") == place / "empty"
    (place / "src" / "run.lock").touch()  # killed before its record was written
    assert new_run_folder("./src") == place / "src"
    (place / "old" / "artifacts" / "steps").mkdir(parents=True)  # its record and its lock were deleted
    assert new_run_folder("./old") == place / "old"


def test_runs_are_found_by_name_and_path(place: Path) -> None:
    mine = write_record(place / "runs" / "mine")
    assert find_run("mine") == find_run("runs/mine") == find_run(str(mine)) == mine
    assert find_run("runs/other") is find_run("other") is find_run("") is None
    write_record(place / "runs" / "late", started_at="2026-02-01")
    (place / "runs" / "noise").mkdir()
    (place / "runs" / "noise" / "run.json").write_text("[1]")
    assert [folder.name for folder, _ in local_runs()] == ["late", "mine"]


def test_a_run_is_running_as_long_as_its_runner_is(place: Path) -> None:
    folder = write_record(place / "runs" / "mine", state="running")
    assert read_run(folder)["state"] == "killed"
    (folder / "run.lock").write_text(json.dumps({"pid": os.getpid(), "mark": runner_mark(os.getpid())}))
    assert read_run(folder)["state"] == "running"
    (folder / "run.lock").write_text(json.dumps({"pid": os.getpid(), "mark": f"{os.getpid()}:1"}))
    assert read_run(folder)["state"] == "killed"


@pytest.mark.parametrize(
    "facts", [{"tasks": 3}, {"tasks": [{"name": 1}, "x", {}]}, {"parameters": [1]}, {"started_at": 7}]
)
def test_a_damaged_record_is_read_as_far_as_it_is_one(facts: dict[str, object], place: Path) -> None:
    record = read_run(write_record(place / "runs" / "mine", **facts))
    assert (record["tasks"], record["parameters"]) == ([], {})
    assert isinstance(record["started_at"], str)
    assert len(list(local_runs())) == 1
