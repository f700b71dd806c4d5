"""The result of a curation: a decision for every image, the funnel, histograms of the scores, and examples.

decisions/lines-000007.parquet   one row an image: where, status, step, value, rule, and every number it was given
curation.json                    funnel, thresholds with their sources, failures by reason, histograms, examples
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vl3.config.curation import EXACT, FILTER, NEAR, CurationConfig, SelectionStep
from vl3.curation.places import Places
from vl3.curation.rounds import DROPPED, FAILED, KEPT, READ_STEP, Round, Verdicts
from vl3.curation.scores import ScorerKey, ScoreStore
from vl3.curation.source import InputPart
from vl3.curation.table import parquet_bytes
from vl3.system.files import atomic_write_bytes, atomic_write_json

RESULT_FILE = "curation.json"
DECISIONS = "decisions"
MAX_EXAMPLES = 12
"""Examples of each step, and of the failures."""
MAX_REASONS = 50
_BINS = 40
_SIZES = "max_image_bytes of the recipe"


@dataclass(kw_only=True, slots=True)
class CurationTally:
    """What is counted over the parts."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Images by (step, status); kept ones have the step ''."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Failures by (step, first words of the reason)."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Some images by step; kept ones under `kept`."""
    numbers: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """By column, a thinned sample of its values."""
    total: int = 0


def write_result(
    parts: Sequence[InputPart],
    config: CurationConfig,
    rounds: Sequence[Round],
    keys: Mapping[str, ScorerKey],
    places: Places,
    scores: ScoreStore,
    folder: Path,
) -> dict[str, Any]:
    """Write decisions and curation.json; returns the latter.

    Raises:
        StorageError: the store fails, or the folder cannot be written.
    """
    tally = CurationTally()
    (folder / DECISIONS).mkdir(parents=True, exist_ok=True)
    for part in parts:
        table = decisions_of(part, rounds[-1], keys, places, scores)
        atomic_write_bytes(folder / DECISIONS / f"{part.name}.parquet", parquet_bytes(table))
        _count(tally, part.name, table, {name: one.caption for name, one in config.datasets.items()})
    facts = summary(config, rounds, keys, tally)
    atomic_write_json(folder / RESULT_FILE, facts)
    return facts


def decisions_of(
    part: InputPart, last: Round, keys: Mapping[str, ScorerKey], places: Places, scores: ScoreStore
) -> pa.Table:
    """Every image of a part with its decision and its numbers and words; features are left out."""
    listing, verdicts = places.require_listing(part.name), places.require_state(last.key, part.name)
    columns: dict[str, Any] = {name: listing[name] for name in ("key", "where", "sha256", "size_bytes", "text")}
    for name in ("status", "step", "value", "rule"):
        columns[name] = pa.array(getattr(verdicts, name).tolist(), pa.string())
    sha256s = listing["sha256"].to_pylist()
    for key in keys.values():
        found = scores.of_part(key, part.name).of(sha256s)
        for name in key.outputs:
            column = found[name]
            if column.ndim == 1 and column.dtype.kind in "fiu":
                columns[name] = pa.array(column.astype(np.float32), from_pandas=True)
            elif column.ndim == 1:
                is_words = any(isinstance(one, str) for one in column)
                columns[name] = pa.array(column.tolist(), pa.string() if is_words else pa.null())
    scores.forget()
    return pa.table(columns)


def summary(
    config: CurationConfig, rounds: Sequence[Round], keys: Mapping[str, ScorerKey], tally: CurationTally
) -> dict[str, Any]:
    """The content of curation.json."""
    return {
        "recipe": config.name,
        "images": tally.total,
        "kept": tally.ended[("", KEPT)],
        "funnel": funnel(config, rounds, tally.total, tally.ended),
        "failures": [
            {"step": step, "reason": reason, "count": count}
            for (step, reason), count in sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0]))[
                :MAX_REASONS
            ]
        ],
        "scorers": {key.name: key.version for key in keys.values()},
        "histograms": _histograms(config, tally),
        "examples": tally.examples,
    }


def funnel(
    config: CurationConfig, rounds: Sequence[Round], total: int, ended: Mapping[tuple[str, str], int]
) -> list[dict[str, Any]]:
    """The steps in order: how many images came to each, how many it dropped, how many failed, how many went on.

    What fails in a scorer fails on the way to the next step. 100 images, 2 unreadable, 8 dropped by aspect_ratio, 5
    without an answer of clip, 20 dropped by aesthetic: read 100 -> 98, aspect_ratio 98 -> 90, aesthetic 90 -> 65.
    """
    rows = [_row(READ_STEP, "file", "what can be read", _SIZES, total, 0, ended.get((READ_STEP, FAILED), 0))]
    waiting: list[str] = []

    def add(name: str, column: str, rule: str, source: str) -> None:
        failed = sum(ended.get((one, FAILED), 0) for one in waiting)
        dropped = ended.get((name, DROPPED), 0)
        rows.append(_row(name, column, rule, source, rows[-1]["left"], dropped, failed))
        waiting.clear()

    for round_ in rounds:
        for operation in round_.operations:
            if operation.filter is not None:
                judged = operation.filter
                add(judged.name, judged.column, judged.rule, judged.source)
            else:
                waiting.append(operation.scorer)
        if round_.closing:
            step = config.steps[round_.closing]
            add(round_.closing, step.column or "sha256", rule_of(step), step.source)
    if waiting:
        add("captions", ", ".join(waiting), "what has every caption", "ours: a sample without its caption is none")
    return rows


def rule_of(step: SelectionStep) -> str:
    """What a step that compares images keeps, in words."""
    if step.kind == EXACT:
        return "the first of equal files"
    if step.kind == NEAR:
        return f"the first of those that differ in at most {step.max_distance} bits"
    apart = f", those apart by more than {step.max_similarity:g}" if step.max_similarity < 1 else ""
    return f"the {step.per_cluster:,} nearest to each of {step.num_clusters:,} centres{apart}"


def _row(step: str, column: str, rule: str, source: str, came: int, dropped: int, failed: int) -> dict[str, Any]:
    counts = {"came": came, "dropped": dropped, "failed": failed, "left": came - dropped - failed}
    return {"step": step, "column": column, "rule": rule, "source": source, **counts}


def _count(tally: CurationTally, part: str, table: pa.Table, captions: Mapping[str, str]) -> None:
    names = ("where", "key", "sha256", *Verdicts.__slots__)
    wanted = dict.fromkeys((*names, *captions.values()))
    columns: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in wanted}
    tally.total += table.num_rows
    for row, (status, step) in enumerate(zip(columns["status"], columns["step"], strict=True)):
        tally.ended[step, status] += 1
        if status == FAILED:
            tally.reasons[step, _kind_of(columns["rule"][row])] += 1
        shown = tally.examples.setdefault("kept" if status == KEPT else step, [])
        if len(shown) < MAX_EXAMPLES:
            facts = {name: columns[name][row] for name in names if name != "step"}
            words = {name: columns[column][row] for name, column in captions.items()} if status == KEPT else {}
            shown.append({"part": part, **facts, "captions": {name: text for name, text in words.items() if text}})
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_floating(column.type):
            values = column.drop_null().to_numpy()
            tally.numbers.setdefault(name, []).append(values[:: max(1, tally.total // 200_000)])


def _kind_of(reason: str) -> str:
    """A reason without what differs from image to image: digests, numbers of bytes, and everything after them."""
    words = [word for word in reason.split() if not any(letter.isdigit() for letter in word)]
    return " ".join(words)[:120]


def _histograms(config: CurationConfig, tally: CurationTally) -> dict[str, Any]:
    """Of each judged column: bins, counts and thresholds."""
    found = {}
    for name, step in config.steps.items():
        values = np.concatenate(tally.numbers.get(step.column, [np.zeros(0, dtype=np.float32)]))
        values = values[np.isfinite(values)]
        if step.kind != FILTER or not len(values):
            continue
        low, high = np.quantile(values, [0.001, 0.999])
        limits = [one for one in (step.minimum, step.maximum) if one is not None]
        low, high = min(float(low), *limits, float(high)), max(float(high), *limits, float(low))
        counts, edges = np.histogram(
            np.clip(values, low, high), bins=_BINS, range=(low, high if high > low else low + 1)
        )
        found[name] = {
            "column": step.column,
            "edges": [round(float(one), 6) for one in edges],
            "counts": counts.tolist(),
            "thresholds": limits,
        }
    return found
