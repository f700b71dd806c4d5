"""The file evaluation.json by which steps hand an evaluation on: light, for steps that only read one."""

import json
from pathlib import Path
from typing import Any

EVALUATION_FILE = "evaluation.json"
"""File with all results in the folder of an evaluation."""


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The content of an evaluation's evaluation.json."""
    return json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))
