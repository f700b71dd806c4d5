"""`vl3 run` for runs on this machine: refused before anything is written, listed, shown and reported."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vl3.cli import local, main
from vl3.errors import ConfigError
from vl3.lifeline import runner_mark
from vl3.system.uris import file_uri

VL3 = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("VL3_KFP_ENDPOINT", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def vl3(place: Path, capsys: pytest.CaptureFixture[str]) -> VL3:
    """Runs `vl3 run ...` here: exit code, lines on stdout and on stderr."""

    def run(*arguments: str) -> tuple[int, list[str], list[str]]:
        code = main.run(["run", *arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def make_data(folder: Path) -> Path:
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "train.jsonl").write_text("{}\n")
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The runs that would have been started."""
    taken: list[Any] = []

    def start(run: Any, prepare: Callable[[], None]) -> int:
        taken.append((run, prepare))
        return 0

    monkeypatch.setattr(local, "start_run", start)
    return taken


@pytest.mark.parametrize("name", ["my data", "a#1", "b%20c", "ü", "a?b", "it's", "--x", "a;b&c"])
def test_data_of_any_name_arrives_as_its_uri(name: str, place: Path, vl3: VL3, started: list[Any]) -> None:
    folder = make_data(place / name)
    for given in (f"--data={name}", f"--data={folder}", f"--data={file_uri(folder)}"):
        assert vl3("start", given) == (0, [], [])
    assert {run.parameters.data_uri for run, _ in started} == {file_uri(folder)}


def test_without_data_a_sample_is_made(place: Path, vl3: VL3, started: list[Any]) -> None:
    assert vl3("start", "--artifacts", "out #1", "--set", "seed=1", "--set", "data.max_frames=8")[0] == 0
    ((run, prepare),) = started
    assert prepare is local.make_sample
    assert run.parameters.data_uri == file_uri(place / "build" / "data" / "tiny")
    assert run.parameters.artifacts_uri == file_uri(place / "out #1")
    assert run.parameters.overrides == ("seed=1", "data.max_frames=8")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workflow", "trane"], "ConfigError: workflow 'trane' is unknown. The nearest is 'train'"),
        (["--recipe", "tinny"], "ConfigError: recipe 'tinny' is unknown. The nearest is 'tiny'"),
        (["--recipe", "-x"], "ConfigError: recipe '-x' is unknown."),
        (["--set", "data.max_frame=64"], "The nearest is 'data.max_frames'"),
        (["--set", "seed"], "ConfigError: override 'seed' has no '='. Write it as path.to.field=value."),
        (["--data", "gone"], "/gone does not exist. Set DATA (--data) to a folder with annotations/train.jsonl."),
        (["--data", "file"], "/file is not a folder. Set DATA"),
        (["--data", "empty"], "train.jsonl is missing or empty. Write one JSON sample per line there"),
        (["--data", "file:///a#b"], "DATA: 'file:///a#b' has a '#', which has another meaning in a URI"),
        (["--data", "gs://b/x"], "DATA: artifact URI 'gs://b/x' has the scheme 'gs'. Use file:///"),
        (["--data", "s3://B/x"], "'B' is not a valid bucket name"),
        (["--data", "x" * 300], "cannot be read (File name too long). Correct DATA (--data)."),
        (["--data", "a\nb"], "does not name a folder of this machine"),
        (["--artifacts", "ftp://x"], "ARTIFACTS: artifact URI 'ftp://x' has the scheme 'ftp'"),
        (["--tracking", "mlflow.db"], "tracking URI 'mlflow.db' has the scheme ''"),
        (["--tracking", "http://"], "names no host"),
        (["--run", "runs/a#1"], "'a#1' cannot be the name of a run, which becomes part of URIs and ids. Use up to 100"),
        (["--run", "x' ; touch F ; echo '"], "cannot be the name of a run"),
        (["--run", "./empty"], "has files and no run.json"),
        (["--run", "./file"], "is a file, so"),
        (["--run-id", "a/b"], "run id 'a/b' cannot be part of URIs and ids"),
        (["--rn", "x"], "No such option: --rn"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_written(
    arguments: list[str], message: str, place: Path, vl3: VL3, started: list[Any]
) -> None:
    (place / "file").touch()
    (place / "empty" / "annotations").mkdir(parents=True)
    code, out, err = vl3("start", *arguments)
    assert (code, out, started) == (2, [], [])
    assert message in err[-1]
    assert err[-1].startswith("ConfigError: ") == (len(err) == 1)
    assert sorted(path.name for path in place.iterdir()) == ["empty", "file"]


def test_a_folder_that_cannot_be_made_ends_with_6(place: Path, vl3: VL3, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, _, err = vl3("start", "--run", "mine")
    assert code == 6
    assert "the run folder cannot be created (Permission denied)" in err[-1]


def test_the_exit_code_is_the_runs_own(place: Path, vl3: VL3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "start_run", lambda run, prepare: 130)
    assert vl3("start") == (130, [], [])  # the run has said that it was interrupted


def test_a_wrong_argument_loads_nothing_heavy(place: Path) -> None:
    program = (
        "import sys; from vl3.cli.main import run; code = run(['run', 'start', '--recipe', 'x']);"
        "print(code, [name for name in ('torch', 'kfp', 'mlflow', 'numpy', 'pyarrow', 'av') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"


def write_run(folder: Path, **facts: Any) -> Path:
    folder.mkdir(parents=True)
    tasks = [
        {"name": "validate-data", "state": "done", "seconds": 12.34, "reused": False},
        {"name": "train-video", "state": "running", "seconds": 3.0, "reused": False},
        {"name": "report", "state": "waiting", "seconds": None, "reused": False},
    ]
    record = {"run_id": f"{folder.name}-1", "earlier_attempts": [], "state": "running", "workflow": "train"}
    record |= {"started_at": "2026-01-02T03:04:05.678+00:00", "error": None, "tasks": tasks}
    (folder / "run.json").write_text(json.dumps({**record, "parameters": {"recipe": "tiny"}, **facts}))
    return folder


def write_status(folder: Path, **facts: Any) -> None:
    (folder / "status").mkdir()
    status = {"task": "train-video", "state": "running", "started_at": "2026-01-02T03:04:05+00:00", **facts}
    (folder / "status" / "train-video.json").write_text(json.dumps(status))


def hold_lock(folder: Path) -> None:
    (folder / "run.lock").write_text(json.dumps({"pid": os.getpid(), "mark": runner_mark(os.getpid())}))


def test_list_shows_the_runs_on_this_machine(place: Path, vl3: VL3) -> None:
    assert vl3("list") == (0, ["no run of this workflow yet"], [])
    assert vl3("list", "--json") == (0, ["[]"], [])
    write_run(place / "runs" / "old", state="succeeded", started_at="2026-01-01T00:00:00.000+00:00")
    hold_lock(write_run(place / "runs" / "new"))
    write_run(place / "runs" / "dead", started_at="2025-01-01T00:00:00.000+00:00")
    _, out, _ = vl3("list")
    assert [line.split() for line in out] == [
        ["run", "state", "recipe", "created", "where"],
        ["new", "running", "tiny", "2026-01-02", "03:04", f"{place}/runs/new"],
        ["old", "succeeded", "tiny", "2026-01-01", "00:00", f"{place}/runs/old"],
        ["dead", "killed", "tiny", "2025-01-01", "00:00", f"{place}/runs/dead"],
    ]
    rows = json.loads("\n".join(vl3("list", "--json")[1]))
    assert [row["run"] for row in rows] == ["new", "old", "dead"]


def test_status_of_a_run_at_work(place: Path, vl3: VL3) -> None:
    folder = write_run(place / "runs" / "mine")
    hold_lock(folder)
    write_status(folder, progress={"done": 5, "total": 20, "left_seconds": 65.0, "text": "loss 0.4"})
    for name in ("mine", "runs/mine", str(folder)):
        code, out, err = vl3("status", name)
        assert (code, err) == (0, [])
        assert [line.split("  ")[0] for line in out] == ["run mine: running", "validate-data", "train-video", "report"]
        assert out[2].split()[1:] == ["running", "5", "of", "20", "(25", "%),", "1:05", "left,", "loss", "0.4"]
    shown = json.loads("\n".join(vl3("status", "mine", "--json")[1]))
    assert shown["tasks"][1]["progress"] == {"done": 5, "total": 20, "left_seconds": 65.0, "text": "loss 0.4"}
    assert (shown["state"], shown["run_id"], shown["report"]) == ("running", "mine-1", None)


def test_status_of_a_run_that_was_killed(place: Path, vl3: VL3) -> None:
    write_run(place / "runs" / "mine")
    assert [line.split()[:2] for line in vl3("status", "mine")[1][1:]] == [
        ["validate-data", "done"],
        ["train-video", "killed"],
        ["report", "waiting"],
    ]


def test_follow_ends_with_the_runs_own_error(place: Path, vl3: VL3) -> None:
    error = {"family": "DataError", "message": "validate-data: the dataset is refused."}
    write_run(place / "runs" / "bad", state="failed", error=error, tasks=[])
    code, out, err = vl3("status", "bad", "--follow")
    assert (code, out) == (3, ["run: failed"])
    assert err == ["DataError: validate-data: the dataset is refused. Start the same run again to resume it."]
    write_run(place / "runs" / "good", state="succeeded", tasks=[])
    assert vl3("status", "good", "-f") == (0, ["run: succeeded"], [])
    assert vl3("status", "good", "-f", "--json")[0] == 0


@pytest.mark.parametrize(
    "facts", [{"error": 3}, {"error": {"family": 1}}, {"tasks": [{"name": "../x", "state": "running"}]}]
)
def test_a_damaged_record_is_no_defect(place: Path, vl3: VL3, facts: dict[str, Any]) -> None:
    write_run(place / "runs" / "odd", state="failed", **facts)
    assert vl3("status", "odd")[0] == 0
    code, _, err = vl3("status", "odd", "-f")
    assert code == 1
    assert err[-1].startswith("Vl3Error: ")
    assert "defect" not in err[-1]


def test_an_unknown_run_names_the_runs_that_there_are(place: Path, vl3: VL3) -> None:
    write_run(place / "runs" / "mine")
    for verb in ("status", "report"):
        code, _, err = vl3(verb, "mien")
        assert (code, err) == (2, ["ConfigError: no run 'mien' is on this machine. Runs below runs/: mine."])


def test_the_address_of_a_report_is_a_uri(place: Path, vl3: VL3) -> None:
    folder = write_run(place / "a #1" / "mine", state="succeeded")
    assert vl3("report", str(folder))[0] == 2
    (folder / "report").mkdir()
    (folder / "report" / "report.html").touch()
    uri = f"file://{place}/a%20%231/mine/report/report.html"
    assert vl3("report", str(folder)) == (0, [uri], [])
    assert vl3("status", str(folder))[1][-1] == f"report: {uri}"


def test_an_address_is_checked_without_a_connection() -> None:
    with pytest.raises(ConfigError, match="names no file"):
        local.with_addresses(local.WorkflowParameters(tracking_uri="sqlite://"))
