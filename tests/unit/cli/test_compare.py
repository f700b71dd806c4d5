"""`vl3 run compare`: runs of this machine and submitted ones, and every way in which a name can be wrong."""

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import report_sample
from vl3.cli import main
from vl3.cli.tables import aligned
from vl3.report.page import write_report
from vl3.store.artifacts import publish
from vl3.workflow.key import KeyParts
from vl3.workflow.record import StepRecord, record_uri, write_record

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("report")
    write_report(report_sample.report_data(folder), folder, evaluation_folder=folder)
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working directory, and no server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("VL3_KFP_ENDPOINT", raising=False)
    return tmp_path


@pytest.fixture
def make_run(here: Path, numbers: dict[str, Any]) -> Callable[..., Path]:
    """Makes a finished run below runs/, with changed numbers."""

    def make(name: str, change: Change = lambda _: None, *, state: str = "succeeded") -> Path:
        folder = here / "runs" / name
        _write_report(folder / "report", name, numbers, change)
        record = {"run_id": f"id-{name}", "state": state, "earlier_attempts": []}
        (folder / "run.json").write_text(json.dumps(record))
        return folder

    return make


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command: exit code, stdout, last line on stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main.run(["run", "compare", *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, (err.splitlines() or [""])[-1]

    return run


def _write_report(folder: Path, name: str, numbers: dict[str, Any], change: Change) -> None:
    own = copy.deepcopy(numbers)
    own["run"]["run_id"] = f"id-{name}"
    change(own)
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(own))


def _better_charts(numbers: dict[str, Any]) -> None:
    numbers["settings"]["stages.video.learning_rates.vision"] = 1e-5
    for row in numbers["accuracy"]["categories"]:
        if row["category"] == "chart":
            row["scores"]["video"] |= {"correct": 100, "total": 100}


def test_tables_show_what_differs_and_what_is_beyond_chance(make_run, compare, here: Path) -> None:
    make_run("a")
    make_run("b", _better_charts)
    code, out, err = compare("a", "runs/b")
    assert (code, err) == (0, "")
    assert re.search(r"^SETTING +a +runs/b$", out, re.M)
    assert re.search(r"^stages\.video\.learning_rates\.vision +0\.001 +1e-5$", out, re.M)
    assert re.search(r"^chart +83\.0% \(74% to 89%\) +100\.0% \(96% to 100%\) +\+17\.0 .* < 0\.001 +better$", out, re.M)
    assert len(re.findall(r" within chance$", out, re.M)) == 9 + bool(re.search(r"^mean .*within chance$", out, re.M))
    assert re.search(r"^alignment +[▁-█]{8,16} [\d.]+ -> [\d.]+ in 450 steps", out, re.M)
    assert "correction for 10 tasks (Holm); 0 of them were compared question by question" in " ".join(out.split())
    assert "WHAT ELSE DIFFERS" not in out
    assert out.splitlines()[-1] == "build/compare.html: the same as a page"
    assert "▲ better" in (here / "build" / "compare.html").read_text()


def test_json_has_every_number(make_run, compare, here: Path) -> None:
    make_run("a")
    make_run("b", _better_charts)
    code, out, _ = compare("a", "b", "--json", "--out", "page/here.html")
    found = json.loads(out)
    assert code == 0
    assert found["settings"] == [{"name": "stages.video.learning_rates.vision", "first": 0.001, "second": 1e-5}]
    assert found["accuracy"]["tasks"]["chart"]["verdict"] == "better"
    assert found["page"] == "page/here.html"
    assert (here / "page" / "here.html").is_file()


def test_equal_runs_differ_in_nothing(make_run, compare) -> None:
    make_run("a")
    code, out, _ = compare("a", "a")
    assert code == 0
    assert "note: Both are the run id-a." in out
    assert "Both runs have the same settings." in out
    assert "better" not in out
    assert "worse" not in out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nightt", "run 'nightt' is not known: neither that folder nor runs/ has a run of this name. The nearest is"),
        ("", "run '' is not known"),
        ("../../etc", "run '../../etc' is not known"),
        ("/nowhere", "run '/nowhere' is not known"),
        ("a\0b", "run 'a\\x00b' is not known"),
        ("x" * 5000, "is not known"),
        ("--nope", ""),
    ],
    ids=["typo", "empty", "above", "absolute", "nul", "long", "option"],
)
def test_a_name_of_no_run_costs_one_sentence(make_run, compare, name: str, message: str) -> None:
    make_run("night")
    code, out, err = compare("night", name)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err) < 600


@pytest.mark.parametrize("state", ["running", "failed", "interrupted"])
def test_a_run_without_a_report_is_not_compared(make_run, compare, state: str) -> None:
    make_run("a")
    shutil.rmtree(make_run("b", state=state) / "report")
    code, out, err = compare("a", "b")
    assert (code, out) == (2, "")
    assert err.startswith(f"ConfigError: run b has no report yet (it is {state}), so there is nothing to compare.")


def test_a_report_of_an_earlier_attempt_is_not_taken_for_the_run(make_run, compare) -> None:
    make_run("a")
    path = make_run("b") / "run.json"
    path.write_text(path.read_text().replace("id-b", "id-b2"))
    code, _, err = compare("a", "b")
    assert code == 2
    assert "run b was started again as id-b2, and its report is still that of id-b." in err


def test_a_damaged_record_of_the_run_does_no_harm(make_run, compare) -> None:
    (make_run("a") / "run.json").write_bytes(b"\xff{")
    make_run("b")
    assert compare("a", "b")[0] == 0


def test_a_damaged_report_ends_with_the_code_of_the_store(make_run, compare) -> None:
    make_run("a")
    (make_run("b") / "report" / "report.json").write_text('{"settings": {}}')
    code, out, err = compare("a", "b")
    assert (code, out) == (6, "")
    assert "the report of run b is damaged ('accuracy' is missing)" in err


def test_control_characters_do_not_reach_the_terminal(make_run, compare) -> None:
    def change(numbers: dict[str, Any]) -> None:
        numbers["settings"]["a\x1b[2J"] = "b\x07\nc"
        numbers["stages"][0]["stage"] = "s\x1b[31m"
        numbers["accuracy"]["models"][-1] = "m\x1b[31m"
        for row in numbers["accuracy"]["categories"]:
            row["scores"]["m\x1b[31m"] = row["scores"]["video"]

    make_run("a")
    make_run("b", change)
    code, out, _ = compare("a", "b")
    assert code == 0
    assert "The last models are compared" in out
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f]", out) == []
    assert aligned([("a\x1b", "b"), ("c", "d")]) == "a\ufffd  b\nc   d"


def test_a_submitted_run_is_found_through_its_artifacts(
    make_run, compare, pipelines_server, numbers: dict[str, Any], here: Path
) -> None:
    make_run("a")
    root = (here / "artifacts").as_uri()
    for run_id, change in (("other", lambda _: None), ("night-7", _better_charts)):
        parts = KeyParts(config={"run": run_id}, inputs={}, modules={}, libraries={})
        uri = record_uri(root, "report", parts.key("report"))
        _write_report(here / f"new-{run_id}", run_id, numbers, change)
        report = publish(here / f"new-{run_id}", f"{uri}/report", kind="report", created_by={"step": "report"})
        record = StepRecord(
            key=parts.key("report"),
            name="report",
            outputs={"report": report},
            values={},
            seconds=1.0,
            created_at="2026-01-01T00:00:00.000+00:00",
            commit="c",
            parts=parts,
        )
        write_record(uri, record)
    for run_id in ("id-night-7", "waiting"):
        workflow = {"run_id": run_id, "recipe": "tiny", "artifacts_uri": root}
        pipelines_server.add_run(run_id, "SUCCEEDED", parameters={"workflow": workflow})
    foreign = pipelines_server.add_run("foreign", "SUCCEEDED", parameters={"workflow": "other"})
    server = ("--endpoint", pipelines_server.endpoint)
    code, out, err = compare("a", "id-night-7", *server)
    assert (code, err) == (0, "")
    assert re.search(r"^chart .* better$", out, re.M)
    code, _, err = compare("a", "waiting", *server)
    assert code == 2
    assert "run waiting is SUCCEEDED and none of the newest reports below" in err
    code, _, err = compare("a", foreign["run_id"], *server)
    assert (code, "is not one of vl3's workflow" in err) == (2, True)
    code, _, err = compare("a", "unknown", *server)
    assert (code, "run 'unknown' is not known to" in err) == (2, True)
