"""Reads the files of an evaluation, for steps that need only the result: no heavy imports."""

import json
from pathlib import Path
from typing import Any

EVALUATION_FILE = "evaluation.json"
"""The file with all results in the folder of an evaluation."""
ITEMS_FILE = "items.json"
"""The file that says of every question which models answered it rightly (vl3.evaluation.result.list_items)."""


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The content of an evaluation's evaluation.json."""
    return json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))


def read_items(folder: Path) -> dict[str, Any]:
    """The content of an evaluation's items.json."""
    return json.loads((folder / ITEMS_FILE).read_text(encoding="utf-8"))
