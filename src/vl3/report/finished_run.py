"""Reads the report of a finished run for a comparison, without trusting what the files hold."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.errors import ConfigError, StorageError
from vl3.report.score_changes import Scores
from vl3.system.documents import parse_object

REPORT_JSON = "report.json"
ITEMS_JSON = "items.json"
"""Copy of the evaluation's file that says which questions were answered rightly."""
_MAX_QUESTIONS = 10_000_000
_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """What a comparison needs of a run."""

    name: str
    run_id: str
    settings: dict[str, Any]
    """The effective configuration, by the names of overrides."""
    surroundings: dict[str, str]
    """Machine, versions of libraries and digests of data and bases, by name."""
    losses: dict[str, list[tuple[float, float]]]
    """Step and loss of each logged step, by stage in the order of training."""
    model: str
    """The last model that was evaluated; empty if none was."""
    scores: Scores
    """Its scores."""
    evaluation_uri: str = ""
    """Where its evaluation is stored; empty if it has none."""


def read_finished_run(folder: Path, name: str) -> FinishedRun:
    """Read report.json and items.json of a report's folder.

    Raises:
        ConfigError: the report was written by an older version and lacks the settings.
        StorageError: a file is missing or damaged.
    """
    numbers = _read(folder / REPORT_JSON, name)
    if "settings" not in numbers:
        raise ConfigError(
            f"run {name}: its report was written by an older version of vl3 and holds no settings to compare. Start "
            "the run again: it reuses what is finished and writes a new report."
        )
    items = _read(folder / ITEMS_JSON, name) if (folder / ITEMS_JSON).is_file() else {}
    try:
        return _finished_run(numbers, items, name)
    except _WRONG as error:
        raise StorageError(
            f"{folder / REPORT_JSON}: the report of run {name} is damaged ({_why(error)}). Start the run again: it "
            "reuses what is finished and writes a new report."
        ) from error


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        return parse_object(path.read_bytes())
    except FileNotFoundError as error:
        raise StorageError(f"{path}: the report of run {name} is missing. Start the run again to write it.") from error
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{path}: the report of run {name} cannot be read ({_why(error)}). Start the run again: it reuses what is "
            "finished and writes a new report."
        ) from error


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]


def _finished_run(numbers: dict[str, Any], items: dict[str, Any], name: str) -> FinishedRun:
    accuracy = numbers["accuracy"]
    model = _text(accuracy["models"][-1]) if accuracy else ""
    counts = {
        _text(row["category"]): _counts(row["scores"][model])
        for row in (accuracy["categories"] if accuracy else ())
        if model in row["scores"]
    }
    evaluations = [node for node in numbers["lineage"] or () if node["kind"] == "evaluation"]
    return FinishedRun(
        name=name,
        run_id=_text(numbers["run"]["run_id"]),
        settings=dict(numbers["settings"].items()),
        surroundings=_surroundings(numbers),
        losses={_text(stage["stage"]): _losses(stage["curve"]) for stage in numbers["stages"]},
        model=model,
        evaluation_uri=_text(evaluations[-1]["uri"]) if evaluations else "",
        scores=Scores(counts=counts, items={task: _answers(items[task], model) for task in counts if task in items}),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]} is not a text")
    return value


def _counts(score: dict[str, Any]) -> tuple[int, int]:
    correct, total = score["correct"], score["total"]
    for count in (correct, total):
        if isinstance(count, bool) or int(count) != count or not 0 <= count <= _MAX_QUESTIONS:
            raise ValueError(f"{str(count)[:40]} is not a number of questions")
    if correct > total:
        raise ValueError(f"{correct} of {total} answers are right")
    return int(correct), int(total)


def _answers(asked: dict[str, Any], model: str) -> dict[str, bool]:
    """Whether each question was answered rightly; a question is its id and its content."""
    ids, digests, right = asked["ids"], asked["sha256"], asked["right"].get(model, "")
    if not len(ids) == len(digests) == len(right) or not set(right) <= set("01"):
        raise ValueError(f"{ITEMS_JSON} has other numbers of questions and answers")
    return {
        f"{_text(question)} {_text(digest)}": answer == "1"
        for question, digest, answer in zip(ids, digests, right, strict=True)
    }


def _losses(curve: dict[str, Any]) -> list[tuple[float, float]]:
    """The points whose loss is a number; report.json has a text for one that is not finite."""
    steps, losses = curve["step"], curve.get("loss", [])
    numbers = [(float(step), float(loss)) for step, loss in zip(steps, losses, strict=False) if _is_number(loss)]
    return [(step, loss) for step, loss in numbers if math.isfinite(step) and math.isfinite(loss)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _surroundings(numbers: dict[str, Any]) -> dict[str, str]:
    run = numbers["run"]
    found = {f"version of {name}": _text(text) for name, text in run.get("versions", {}).items()}
    nodes = [node for node in numbers["lineage"] or () if node["kind"] in ("data", "base")]
    return {
        "recipe": _text(run["recipe"]),
        "machine": _text(run.get("machine", "")),
        **found,
        **{f"sha256 of the {_text(node['name'])}": _text(node["sha256"]) for node in nodes},
    }
