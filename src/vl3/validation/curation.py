"""Great Expectations over the result of a curation: every decision, and every sample that is handed over."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.config.curation import FILTER, CurationConfig
from vl3.report.data_docs import write_data_docs
from vl3.system.files import atomic_write_json, storage_errors
from vl3.validation.check import CRITICAL, Check, between
from vl3.validation.judge import Judge
from vl3.validation.result import DOCS_FOLDER, RESULT_FILE, ValidationResult
from vl3.validation.suite import EXPECTATIONS_FOLDER, result_of

if TYPE_CHECKING:
    import pandas as pd

DECISIONS_TABLE, KEPT_TABLE, HANDED_TABLE, FUNNEL_TABLE = "decisions", "kept", "handed", "funnel"
_STATUSES = ["kept", "dropped", "failed"]
_BATCH_LINES = 50_000


def validate_curation(curation: Path, videos: Path, config: CurationConfig, out_folder: Path) -> ValidationResult:
    """Judge a curation part by part.

    Args:
        curation: folder of the result of images (vl3.curation.result, vl3.curation.handover).
        videos: folder of the result of videos (vl3.curation.video.whole).
        config: the recipe, with whose thresholds the kept images are compared.
        out_folder: gets `data_docs/index.html` and `validation.json`.

    Returns:
        The findings. A refused curation is a result, not an error.

    Raises:
        StorageError: the output cannot be written.
    """
    docs_folder = out_folder / DOCS_FOLDER
    with storage_errors(docs_folder):
        docs_folder.mkdir(parents=True, exist_ok=True)
    facts = json.loads((curation / "curation.json").read_text(encoding="utf-8"))
    judge = Judge(curation_checks(config))
    counts = Counter[str]()
    for frame in _decisions(curation / "decisions"):
        judge.add(DECISIONS_TABLE, _decision_frame(frame))
        judge.add(KEPT_TABLE, frame[frame["status"] == "kept"])
        counts.update(frame["status"])
    handed = {name: curation / name for name in config.datasets}
    if config.videos is not None:
        handed[config.videos.dataset] = videos / config.videos.dataset
    for name, folder in handed.items():
        for frame in _handed(folder, name):
            judge.add(HANDED_TABLE, frame)
    judge.add(FUNNEL_TABLE, _funnel_frame(facts, counts))
    judge.write(docs_folder / EXPECTATIONS_FOLDER)
    shown = {name: counts[name] for name in _STATUSES}
    result = result_of(judge.results(), {"lines": sum(counts.values()), **shown}, docs_folder)
    atomic_write_json(out_folder / RESULT_FILE, result.to_dict())
    write_data_docs(result.to_dict(), docs_folder)
    return result


def curation_checks(config: CurationConfig) -> list[Check]:
    """What is asked of a curation."""
    checks = [
        _in_set(
            "every_image_ends", DECISIONS_TABLE, "status", _STATUSES, "an image ends neither kept, dropped nor failed"
        ),
        _null(
            "every_end_has_its_reason",
            DECISIONS_TABLE,
            "unexplained",
            "an image was dropped or failed without its step or threshold",
        ),
        _null(
            "funnel_adds_up",
            FUNNEL_TABLE,
            "problem",
            "a step of the funnel does not go on with what the one before it left",
        ),
        _null("samples_are_whole", HANDED_TABLE, "problem", "a sample that is handed over has no picture or no words"),
    ]
    for name, step in config.steps.items():
        if step.kind == FILTER and not step.allowed:
            meaning = f"an image was kept although {step.column} is outside the threshold of {name}"
            given = (f"kept_fit_{name}", step.column, step.minimum, step.maximum, CRITICAL, meaning)
            checks.append(between(*given, table=KEPT_TABLE))
    return checks


def _in_set(name: str, table: str, column: str, values: list[str], meaning: str) -> Check:
    arguments = {"column": column, "value_set": values}
    kind = "ExpectColumnValuesToBeInSet"
    return Check(name=name, table=table, expectation=kind, arguments=arguments, severity=CRITICAL, meaning=meaning)


def _null(name: str, table: str, column: str, meaning: str) -> Check:
    kind, arguments = "ExpectColumnValuesToBeNull", {"column": column}
    return Check(name=name, table=table, expectation=kind, arguments=arguments, severity=CRITICAL, meaning=meaning)


def _decisions(folder: Path) -> Iterator["pd.DataFrame"]:
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")):
        yield pq.read_table(path).to_pandas()


def _decision_frame(frame: "pd.DataFrame") -> "pd.DataFrame":
    """`unexplained` is what is missing of a decision; null where nothing is."""
    frame = frame[["where", "status", "step", "rule"]].copy()
    ended = frame["status"] != "kept"
    lacks = ended & ((frame["step"] == "") | (frame["rule"] == ""))
    frame["unexplained"] = None
    frame.loc[lacks, "unexplained"] = "no step or no threshold"
    return frame


def _handed(folder: Path, name: str) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    with (folder / "annotations" / "train.jsonl").open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            problem = _problem(folder, json.loads(line))
            rows.append({"where": f"{name}:{number}", "problem": problem})
            if len(rows) == _BATCH_LINES:
                yield pd.DataFrame(rows)
                rows = []
    yield pd.DataFrame(rows, columns=["where", "problem"])


def _problem(folder: Path, sample: dict[str, Any]) -> str | None:
    """What a sample lacks; None if it is whole."""
    if "video" in sample:
        path, medium = sample["video"]["path"], "video"
        if not sample["video"]["start"] < sample["video"]["end"]:
            return f"the clip of {path} ends before it starts"
    else:
        path, medium = sample["image"][0], "image"
    if not (folder / path).is_file():
        return f"the {medium} {path} is missing"
    if any(not turn["value"].strip() for turn in sample["conversations"]):
        return "a caption, question or answer is empty"
    return None


def _funnel_frame(facts: dict[str, Any], counts: Counter[str]) -> "pd.DataFrame":
    import pandas as pd

    rows, left = [], sum(counts.values())
    for row in facts["funnel"]:
        problem = None if row["came"] == left else f"{row['came']} came, and {left} were left"
        rows.append({"where": row["step"], "problem": problem})
        left = row["left"]
    last = None if left == counts["kept"] else f"{left} are left, and {counts['kept']} are kept"
    return pd.DataFrame([*rows, {"where": "kept", "problem": last}])
