"""The benchmarks of an evaluation: their copies before it, their scores after it."""

import os
import sys
from pathlib import Path
from typing import Any

from vl3.config.evaluation import EvaluationConfig
from vl3.errors import ConfigError, StorageError
from vl3.evaluation.catalogue.entry import choose_benchmarks
from vl3.evaluation.document import read_benchmarks_file
from vl3.store.artifacts import find
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.store.uris import join_uri
from vl3.system.files import storage_errors

HARNESS_VARIABLE = "VL3_EVAL_ENV"
"""Folder of lmms-eval's environment, where it is not `.venv-eval` beside this one."""
_SCORES = "scores"


def benchmark_copies(evaluation: EvaluationConfig) -> dict[str, Reference]:
    """The copy of each benchmark that is asked, by name; empty if none is.

    Raises:
        ConfigError: a name is unknown, or a benchmark has no copy.
        StorageError: the store does not answer.
    """
    if not evaluation.benchmarks:
        return {}
    return {entry.name: _copy(evaluation, entry.name) for entry in choose_benchmarks(evaluation.benchmarks)}


def _copy(evaluation: EvaluationConfig, name: str) -> Reference:
    uri = join_uri(evaluation.benchmark_data, name)
    found = find(uri)
    if found is None:
        raise ConfigError(
            f"{uri} has no copy of benchmark {name}, which evaluation.benchmarks names. Make one: vl3 eval data {name} "
            f"--root DIR --out {uri}."
        )
    return found


def harness_python() -> Path:
    """The interpreter of lmms-eval's environment.

    Raises:
        ConfigError: there is none.
    """
    folder = Path(os.environ.get(HARNESS_VARIABLE) or Path(sys.prefix).with_name(".venv-eval"))
    python = folder / "bin" / "python"
    if not python.is_file():
        raise ConfigError(
            f"{python} is missing, so benchmarks cannot be asked on this machine: lmms-eval has an environment of its "
            f"own. Make it (`make eval-env`), name it in {HARNESS_VARIABLE}, or set placements.benchmarks to run them "
            "in pods."
        )
    return python


def bring_scores(work_uri: str, folder: Path) -> None:
    """Copy records and scores of the benchmarks into an evaluation's folder.

    Raises:
        StorageError: they are missing or cannot be read.
    """
    store = open_store(join_uri(work_uri, _SCORES))
    keys = store.list()
    if not keys:
        raise StorageError(f"{work_uri} has no scores of benchmarks, though they were asked. Start the run again.")
    for key in keys:
        with storage_errors(folder / key):
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
        store.get_file(key, folder / key)


def asked_items(folder: Path) -> dict[str, int]:
    """Number of items of each benchmark that was asked."""
    models = read_benchmarks_file(folder)
    return {name: score["items"] for of_model in models.values() for name, score in of_model.items()}


def partial_copies(folder: Path) -> dict[str, list[str]]:
    """What the copy of a benchmark lacks, of those that are not whole."""
    models = read_benchmarks_file(folder)
    scores = {name: score for of_model in models.values() for name, score in of_model.items()}
    return {name: list(score["copy_problems"]) for name, score in scores.items() if not score["is_complete"]}


def submitted(folder: Path) -> set[str]:
    """Benchmarks whose answers only their own servers can score."""
    models = read_benchmarks_file(folder)
    return {name for of_model in models.values() for name, score in of_model.items() if score["submission"]}


def headlines(folder: Path) -> dict[str, dict[str, Any]]:
    """The harness's own number of each model and benchmark that has one."""
    return {
        model: {name: score["score"] for name, score in scores.items() if score["score"] is not None}
        for model, scores in read_benchmarks_file(folder).items()
    }
