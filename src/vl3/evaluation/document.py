"""Reads evaluation.json, for steps that need only the result: no heavy imports."""

import json
from pathlib import Path
from typing import Any

EVALUATION_FILE = "evaluation.json"
"""The file with all results in the folder of an evaluation."""


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The content of an evaluation's evaluation.json."""
    return json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))
