"""Reads the files of an evaluation, for steps that need only the result: no heavy imports."""

import json
from pathlib import Path
from typing import Any

EVALUATION_FILE = "evaluation.json"
"""The file with all results in the folder of an evaluation."""
ITEMS_FILE = "items.json"
"""The file that says of every question which models answered it rightly (vl3.evaluation.result.list_items)."""

CHAMPION = "champion"
"""Name of the champion among the models of an evaluation."""
EVIDENCE_FILE = "evidence.json"
"""The file with scores, intervals and paired differences of every benchmark (vl3.evaluation.evidence)."""
BENCHMARKS_FILE = "benchmarks.json"
"""The file with the scores of benchmarks, as the harness has computed them (vl3.evaluation.harness.scores)."""
PICTURES_FILE = "pictures.json"
"""The file that names the small pictures of the items that a report shows, by benchmark and item."""


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The content of an evaluation's evaluation.json."""
    return json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))


def own_models(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """The models of an evaluation that the run itself made: without the champion, which is only compared with."""
    return [model for model in evaluation["models"] if model["name"] != CHAMPION]


def read_items(folder: Path) -> dict[str, Any]:
    """The content of an evaluation's items.json."""
    return json.loads((folder / ITEMS_FILE).read_text(encoding="utf-8"))


def read_benchmarks_file(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores by model and benchmark as the harness has computed them; empty if no benchmark was asked."""
    path = folder / BENCHMARKS_FILE
    return json.loads(path.read_text(encoding="utf-8"))["models"] if path.is_file() else {}


def read_evidence(folder: Path) -> dict[str, Any]:
    """The content of an evaluation's evidence.json; empty if it was made by an older version of vl3."""
    path = folder / EVIDENCE_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_pictures(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Paths of pictures within an evaluation's folder, by benchmark and item; empty if there are none."""
    path = folder / PICTURES_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
