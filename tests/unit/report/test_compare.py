"""Two reports side by side, from files that may hold anything."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vl3.errors import ConfigError, StorageError, Vl3Error
from vl3.report.compare import compare_runs, write_comparison
from vl3.report.finished_run import FinishedRun, read_finished_run
from vl3.report.page import write_report

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def numbers(report_sample, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("report")
    write_report(report_sample.report_data(folder), folder, evaluation_folder=folder)
    return json.loads((folder / "report.json").read_text())


@pytest.fixture
def make(numbers: dict[str, Any], tmp_path: Path) -> Make:
    """Writes the report of a run whose numbers were changed by a function."""

    def write(name: str, change: Callable[[dict[str, Any]], Any] = lambda _: None, items: Any = None) -> Path:
        own = copy.deepcopy(numbers)
        own["run"]["run_id"] = f"id-{name}"
        change(own)
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(own))
        if items is not None:
            (tmp_path / name / "items.json").write_text(json.dumps(items))
        return tmp_path / name

    return write


def read(folder: Path) -> FinishedRun:
    return read_finished_run(folder, folder.name)


def set_accuracy(category: str, correct: int) -> Callable[[dict[str, Any]], None]:
    def change(numbers: dict[str, Any]) -> None:
        (row,) = [row for row in numbers["accuracy"]["categories"] if row["category"] == category]
        row["scores"]["video"] |= {"correct": correct, "total": 100}

    return change


def test_what_differs_is_listed_and_nothing_else(make: Make) -> None:
    def change(numbers: dict[str, Any]) -> None:
        numbers["settings"]["seed"] = 1
        numbers["settings"]["stages.video.learning_rates.language"] = None
        numbers["settings"].pop("data.max_frames")
        numbers["run"]["versions"]["torch"] = "2.14.0"
        numbers["stages"].pop()

    found = compare_runs(read(make("a")), read(make("b", change)))
    assert found["settings"] == [
        {"name": "seed", "first": 0, "second": 1},
        {"name": "data.max_frames", "first": 16},
        {"name": "stages.video.learning_rates.language", "first": 0.001, "second": None},
    ]
    assert found["surroundings"] == [{"name": "version of torch", "first": "2.13.0", "second": "2.14.0"}]
    assert [(one["stage"], bool(one["first"]), bool(one["second"])) for one in found["losses"]][-2:] == [
        ("multitask", True, True),
        ("video", True, False),
    ]
    assert len(found["losses"][0]["first"]) == 20


def test_only_a_difference_beyond_chance_is_coloured(make: Make, tmp_path: Path) -> None:
    found = compare_runs(read(make("a", set_accuracy("chart", 50))), read(make("b", set_accuracy("chart", 90))))
    verdicts = {task: one["verdict"] for task, one in found["accuracy"]["tasks"].items()}
    assert verdicts.pop("chart") == "better"
    assert set(verdicts.values()) == {"within chance"}
    write_comparison(found, tmp_path / "compare.html")
    text = (tmp_path / "compare.html").read_text()
    shown = ["better", found["accuracy"]["mean"]["verdict"], *verdicts.values()]
    assert text.count("▲ better") == text.count('class="rose"') == shown.count("better")
    assert text.count("within chance</span>") == shown.count("within chance")
    assert text.count('class="fell"') == 0
    assert "same settings" in text


def test_answers_to_single_questions_are_used(make: Make) -> None:
    ids = [f"q{number}" for number in range(100)]
    asked = {"ids": ids, "sha256": ["s"] * 100}
    before, after = ({"chart": {**asked, "right": {"video": "1" * n + "0" * (100 - n)}}} for n in (88, 97))
    first, second = set_accuracy("chart", 88), set_accuracy("chart", 97)
    found = compare_runs(read(make("a", first, before)), read(make("b", second, after)))["accuracy"]["tasks"]
    assert (found["chart"]["questions"], found["document"]["questions"]) == (100, None)
    samples = compare_runs(read(make("c", first)), read(make("d", second)))
    assert samples["accuracy"]["tasks"]["chart"]["difference"]["p_value"] > found["chart"]["difference"]["p_value"]
    assert "Scores are compared as two samples: c and d kept no answers to single questions." in samples["notes"]


def test_notes_say_what_limits_the_comparison(make: Make) -> None:
    def stop_early(numbers: dict[str, Any]) -> None:
        numbers["accuracy"]["models"] = numbers["accuracy"]["models"][:-1]

    first = read(make("a"))
    found = compare_runs(first, read(make("b", stop_early)))
    assert "The last models are compared: video of a, multitask of b." in found["notes"]
    assert "Both are the run id-a." in compare_runs(first, first)["notes"]
    none = compare_runs(first, read(make("c", lambda numbers: numbers.update(accuracy=None))))
    assert "c was not evaluated." in none["notes"]
    assert none["accuracy"]["tasks"] == {}


def test_page_escapes_and_asks_for_nothing(make: Make, tmp_path: Path) -> None:
    def change(numbers: dict[str, Any]) -> None:
        numbers["settings"] |= {HOSTILE: HOSTILE, "seed": [1e-5, None, True, {HOSTILE: HOSTILE}]}
        numbers["run"] |= {"run_id": HOSTILE, "recipe": HOSTILE, "versions": {HOSTILE: HOSTILE}}
        numbers["stages"][0]["stage"] = HOSTILE
        numbers["accuracy"]["categories"][0]["category"] = HOSTILE

    found = compare_runs(read(make("a")), read_finished_run(make("b", change), HOSTILE))
    write_comparison(found, tmp_path / "compare.html")
    text = (tmp_path / "compare.html").read_text()
    assert re.findall(r"<script|<img|src=", text.replace("src=x", "")) == []
    assert text.count("&lt;script&gt;") > 8
    assert "http" not in text.replace("http-equiv", "")
    body = re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    assert re.findall(r"\b(?:None|True|False)\b|\de-0\d", body) == []


DAMAGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no run": lambda numbers: numbers.pop("run"),
    "settings": lambda numbers: numbers.update(settings=[1]),
    "stages": lambda numbers: numbers.update(stages={"a": 1}),
    "curve": lambda numbers: numbers["stages"][0].update(curve=None),
    "step": lambda numbers: numbers["stages"][0]["curve"].update(step=["x"] * 20),
    "models": lambda numbers: numbers["accuracy"].update(models=[]),
    "category": lambda numbers: numbers["accuracy"]["categories"][0].update(category=3),
    "count": lambda numbers: numbers["accuracy"]["categories"][0]["scores"]["video"].update(correct="many"),
    "half": lambda numbers: numbers["accuracy"]["categories"][0]["scores"]["video"].update(correct=0.5),
    "above": lambda numbers: numbers["accuracy"]["categories"][0]["scores"]["video"].update(correct=101),
    "endless": lambda numbers: numbers["accuracy"]["categories"][0]["scores"]["video"].update(total=float("inf")),
    "huge": lambda numbers: numbers["accuracy"]["categories"][0]["scores"]["video"].update(total=10**30),
    "versions": lambda numbers: numbers["run"].update(versions=[1]),
    "lineage": lambda numbers: numbers.update(lineage=[1]),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_report_costs_one_sentence(make: Make, damage: str) -> None:
    with pytest.raises(StorageError, match=r"report\.json: the report of run bad is damaged \(.*Start the run again"):
        read(make("bad", DAMAGED[damage]))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"run": ', b"[" * 100_000, b'{"a": "\\ud800"}'])
def test_noise_costs_one_sentence(make: Make, content: bytes) -> None:
    folder = make("bad")
    (folder / "report.json").write_bytes(content)
    with pytest.raises(StorageError, match="the report of run bad cannot be read"):
        read(folder)


@pytest.mark.parametrize(
    "items", [{"chart": []}, {"chart": {"ids": ["a"], "sha256": [], "right": {}}}, {"chart": {"ids": [1]}}]
)
def test_damaged_answers_cost_one_sentence(make: Make, items: Any) -> None:
    with pytest.raises(Vl3Error, match="the report of run bad"):
        read(make("bad", items=items))


def test_an_older_report_and_a_missing_one_are_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run old: its report was written by an older version of vl3"):
        read(make("old", lambda numbers: numbers.pop("settings")))
    with pytest.raises(StorageError, match="the report of run gone is missing"):
        read(tmp_path / "gone")


def test_a_loss_that_is_no_number_is_left_out(make: Make) -> None:
    def change(numbers: dict[str, Any]) -> None:
        numbers["stages"][0]["curve"]["loss"][-1] = "nan"
        numbers["stages"][0]["curve"]["loss"][0] = None

    assert len(read(make("a", change)).losses["vision_adaptation"]) == 18
