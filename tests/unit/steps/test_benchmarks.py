"""Copies of benchmarks before an evaluation, and their scores after it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vl3.config.evaluation import EvaluationConfig
from vl3.errors import ConfigError, StorageError
from vl3.recipes.catalog import get_recipe
from vl3.steps import benchmarks
from vl3.store.artifacts import publish


def asking(folder: Path, *names: str) -> EvaluationConfig:
    return replace(get_recipe("tiny").evaluation, benchmarks=names, benchmark_data=folder.as_uri())


def publish_copy(folder: Path, name: str) -> str:
    made = folder / "made" / name
    made.mkdir(parents=True)
    (made / "benchmark.json").write_text(name)
    return publish(made, (folder / name).as_uri(), kind="benchmark", created_by={}).sha256


def test_each_benchmark_has_its_copy_and_digest(tmp_path: Path) -> None:
    assert benchmarks.benchmark_copies(get_recipe("tiny").evaluation) == {}
    digests = {name: publish_copy(tmp_path, name) for name in ("mme", "gqa")}
    copies = benchmarks.benchmark_copies(asking(tmp_path, "mme", "gqa"))
    assert list(copies) == ["gqa", "mme"], "in the order of the paper's tables"
    assert {name: copy.sha256 for name, copy in copies.items()} == digests


def test_a_benchmark_without_a_copy_or_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/mme has no copy of benchmark mme, .* vl3 eval data mme --root DIR --out"):
        benchmarks.benchmark_copies(asking(tmp_path, "mme"))
    with pytest.raises(ConfigError, match="'mmee' is neither a benchmark nor a group"):
        benchmarks.benchmark_copies(asking(tmp_path, "mmee"))
    with pytest.raises(ConfigError, match=r"evaluation\.benchmarks names mme, but evaluation\.benchmark_data does not"):
        replace(get_recipe("tiny").evaluation, benchmarks=("mme",))


def test_the_harness_has_an_interpreter_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VL3_EVAL_ENV", str(tmp_path))
    with pytest.raises(ConfigError, match=r"bin/python is missing, so benchmarks cannot be asked .*`make eval-env`"):
        benchmarks.harness_python()
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("")
    assert benchmarks.harness_python() == python


def test_scores_and_records_come_into_the_evaluation(tmp_path: Path) -> None:
    work, folder = tmp_path / "work", tmp_path / "evaluation"
    folder.mkdir()
    assert (benchmarks.asked_items(folder), benchmarks.headlines(folder)) == ({}, {})
    with pytest.raises(StorageError, match="has no scores of benchmarks"):
        benchmarks.bring_scores(work.as_uri(), folder)
    scores = {"mme": {"score": 1901.5, "items": 2374}, "egoschema": {"score": None, "items": 5031}}
    (work / "scores" / "items" / "video").mkdir(parents=True)
    (work / "scores" / "items" / "video" / "mme.jsonl").write_text("")
    (work / "scores" / "benchmarks.json").write_text(json.dumps({"models": {"video": scores}}))
    benchmarks.bring_scores(work.as_uri(), folder)
    assert (folder / "items" / "video" / "mme.jsonl").is_file()
    assert benchmarks.asked_items(folder) == {"mme": 2374, "egoschema": 5031}
    assert benchmarks.headlines(folder) == {"video": {"mme": 1901.5}}
