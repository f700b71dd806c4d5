"""Each benchmark's fixture through lmms-eval's own task, in lmms-eval's environment (`make eval-env`)."""

import hashlib
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.benchmarks import build
from vl3.evaluation.catalogue.entry import read_benchmarks

ROOT = Path(__file__).parents[4]
PYTHON = Path(os.environ.get("VL3_EVAL_ENV", ROOT / ".venv-eval")) / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason=f"lmms-eval's environment is missing ({PYTHON}): make eval-env"),
]


def run(folder: Path, names: list[str], **environment: str) -> dict[str, dict[str, Any]]:
    """What the fixtures of benchmarks give, by name."""
    program = ROOT / "tests" / "support" / "run_benchmarks.py"
    done = subprocess.run(
        [PYTHON, program, folder, *names],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == len(names), done.stderr[-3000:]
    return {found["name"]: found for found in map(json.loads, lines)}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All 26 with a judge, in one process: importing lmms-eval is most of the time."""
    return run(tmp_path_factory.mktemp("judged"), list(read_benchmarks()), FIXTURE_JUDGE="1")


@pytest.mark.parametrize("name", list(read_benchmarks()))
def test_three_answers_get_the_scores_of_the_tasks_own_metric(name: str, judged: dict, tmp_path: Path) -> None:
    found, (_, expected) = judged[name], build(name, tmp_path)
    assert "error" not in found, found.get("error")
    scores = {item["item_id"]: item["score"] for item in found["items"]}
    wanted = {
        f"{task}-{number:06d}": guessed(f"{task}-{number:06d}", score) if isinstance(score, str) else score
        for task, several in expected.scores.items()
        for number, score in enumerate(several)
    }
    assert scores == pytest.approx(wanted)
    if expected.score is not None:
        assert found["score"]["score"] == pytest.approx(expected.score, abs=0.01)
    assert found["score"]["is_complete"]
    assert (found["score"]["failed"], found["score"]["not_judged"]) == (0, 0)


def guessed(name: str, rule: str) -> float:
    """The score of a letter that the task draws, from the item's seed."""
    _, letters, right = rule.split()
    random.seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
    return float(random.choice(list(letters)) == right)


def test_submissions_are_written_and_have_no_score(judged: dict) -> None:
    assert judged["egoschema"]["submission"]["v0"] == 0
    assert judged["egoschema"]["submission"]["v1"] == 1
    assert [row["pred_id"] for row in judged["perception_test"]["submission"]] == [0, 1, -1]
    for name in ("egoschema", "perception_test"):
        assert judged[name]["score"]["submission"].startswith("tasks/fixture/submissions/")
        assert judged[name]["score"]["score"] is None
        assert "send" in judged[name]["score"]["why_no_score"]


def test_a_judge_is_asked_at_once_about_all_answers_that_need_it(judged: dict) -> None:
    together = {name: found["together"] for name, found in judged.items() if found["together"]}
    # Of three answers those that no rule of the task can read, by part of the benchmark.
    assert together == {"activitynet_qa": [3], "mathvista": [1], "mmvu": [1], "tempcompass": [1, 1, 1, 3]}


def test_without_a_judge_there_is_no_number_and_no_zero(tmp_path: Path) -> None:
    found = run(tmp_path, ["activitynet_qa", "mathvista", "mmvu", "tempcompass"])
    for name, one in found.items():
        assert one["score"]["score"] is None, name
        assert "not judged" in one["score"]["why_no_score"]
    # What a rule reads needs no judge, and keeps its score.
    assert [item["score"] for item in found["mmvu"]["items"]] == [1, 0, None]
    assert [item["score"] for item in found["activitynet_qa"]["items"]] == [None, None, None]
    assert found["activitynet_qa"]["score"]["not_judged"] == 3
