"""The steps of a recipe as rounds: scorers and filters that judge images one by one, ended by a step that compares all.

    aspect_ratio (filter), near_duplicates (global), aesthetic (filter), clusters (global), captions
    round 0: score image_facts, filter aspect_ratio | near_duplicates
    round 1: score clip, score aesthetic, filter aesthetic | clusters
    round 2: score captions

Within a round each part is worked off by itself. What becomes of an image follows from its scores and the thresholds
alone, by `judge`, also while a scorer runs: what is dropped already is not scored again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vl3.config.curation import EXACT, FILTER, CurationConfig, SelectionStep
from vl3.curation.scorer import Batch, Filter, Scorer, version_digest
from vl3.curation.scores import PartScores, ScorerKey
from vl3.errors import ConfigError

KEPT, DROPPED, FAILED, OPEN = "kept", "dropped", "failed", "open"
"""What becomes of an image; `open` while a score is missing."""
READ_STEP = "read"
"""The step at which an image fails whose file cannot be read."""
_STATE_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One thing that is done to each image of a round: a scorer, or a filter of what is scored."""

    scorer: str = ""
    filter: Filter | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Scorers and filters, and the step after them that compares all images."""

    number: int
    operations: tuple[Operation, ...]
    closing: str
    """Name of the global step at its end; empty for the last round."""
    key: str
    """Digest of all that decides the states at its end: the input, the steps so far, the scorers' versions."""
    closed_key: str
    """The same with the closing step."""

    @property
    def scorers(self) -> tuple[str, ...]:
        """Its scorers in order."""
        return tuple(one.scorer for one in self.operations if one.scorer)


@dataclass(kw_only=True, slots=True)
class Verdicts:
    """What becomes of the images of a part: columns of one length."""

    status: np.ndarray
    step: np.ndarray
    """The step at which it was dropped or failed; empty while it is kept."""
    value: np.ndarray
    """The value that was judged, as text."""
    rule: np.ndarray
    """The threshold in words, or the reason of a failure."""

    @classmethod
    def all_kept(cls, length: int) -> "Verdicts":
        """All kept."""
        return cls(
            status=np.full(length, KEPT, dtype=object),
            step=np.full(length, "", dtype=object),
            value=np.full(length, "", dtype=object),
            rule=np.full(length, "", dtype=object),
        )

    @property
    def is_kept(self) -> np.ndarray:
        """Which are kept, (N,) bool."""
        return self.status == KEPT

    def end(self, places: np.ndarray, status: str, step: str, values: Sequence[str], rules: Sequence[str]) -> None:
        """Note what became of some images."""
        self.status[places], self.step[places] = status, step
        self.value[places], self.rule[places] = values, rules


def scorer_keys(scorers: Mapping[str, Scorer]) -> dict[str, ScorerKey]:
    """Where the scores of each scorer are."""
    return {
        name: ScorerKey(name=name, version=one.version, outputs=tuple(one.outputs)) for name, one in scorers.items()
    }


def inputs_of(scorer: Scorer) -> tuple[str, ...]:
    """Columns that a scorer needs; one that does not say gets the file and the text."""
    return tuple(getattr(scorer, "inputs", ("bytes", "text")))


def retried_scorers(round_: Round, scorers: Mapping[str, Scorer]) -> tuple[str, ...]:
    """The scorers of a round whose failures may pass, such as an endpoint's."""
    return tuple(name for name in round_.scorers if getattr(scorers[name], "retries_failures", False))


def filter_of(name: str, step: SelectionStep) -> Filter:
    """The threshold of a step."""
    return Filter(
        name=name,
        column=step.column,
        minimum=step.minimum,
        maximum=step.maximum,
        allowed=step.allowed,
        source=step.source,
    )


def plan_rounds(config: CurationConfig, scorers: Mapping[str, Scorer], input_key: str) -> list[Round]:
    """The rounds of a recipe.

    Raises:
        ConfigError: a step takes a column that no scorer makes, or two scorers make the same one.
    """
    makers = _makers(scorers)
    rounds: list[Round] = []
    operations: list[Operation] = []
    used: set[str] = set()
    parts: list[Any] = [_STATE_VERSION, input_key]

    def need(column: str, asker: str) -> None:
        if column in ("bytes", "text", "sha256"):
            return
        if column not in makers:
            raise ConfigError(
                f"{asker} takes the column {column!r}, which no scorer makes. The scorers make "
                f"{', '.join(sorted(makers)) or 'nothing'}. Correct the name, or add the scorer."
            )
        name = makers[column]
        if name in used:
            return
        used.add(name)
        for other in inputs_of(scorers[name]):
            need(other, f"scorer {name}")
        operations.append(Operation(scorer=name))
        parts.append([name, scorers[name].version])

    def close(name: str) -> None:
        key = version_digest({"parts": parts})
        if name:
            parts.append([name, _decisive(config.steps[name], config.seed)])
        closed = version_digest({"parts": parts})
        rounds.append(Round(number=len(rounds), operations=tuple(operations), closing=name, key=key, closed_key=closed))
        operations.clear()

    for name, step in config.steps.items():
        if step.kind != EXACT:
            need(step.column, f"step {name}")
        if step.kind == FILTER:
            judged = filter_of(name, step)
            operations.append(Operation(filter=judged))
            parts.append([name, step.column, step.minimum, step.maximum, list(step.allowed)])
        else:
            close(name)
    for name, column in _handed_columns(config):
        need(column, f"dataset {name}")
    close("")
    return rounds


def judge(
    operations: Sequence[Operation],
    keys: Mapping[str, ScorerKey],
    scores: Mapping[str, Batch],
    known: Mapping[str, np.ndarray],
    verdicts: Verdicts,
) -> None:
    """Carry the verdicts through the operations of a round; images that lack a score become OPEN.

    Args:
        operations: what is done, in order.
        keys: by scorer, its columns.
        scores: by scorer, its columns for all images.
        known: by scorer, for which images it has an answer.
        verdicts: of the images; changed.
    """
    for operation in operations:
        live = np.flatnonzero(verdicts.is_kept)
        if operation.scorer:
            key = keys[operation.scorer]
            has_answer = known[operation.scorer][live]
            verdicts.status[live[~has_answer]] = OPEN
            answered = live[has_answer]
            errors = scores[operation.scorer][key.error][answered]
            bad = np.array([error is not None for error in errors], dtype=bool)
            if bad.any():
                reasons = [str(error) for error in errors[bad]]
                verdicts.end(answered[bad], FAILED, operation.scorer, [""] * len(reasons), reasons)
        elif operation.filter is not None:
            _judge_filter(operation.filter, keys, scores, verdicts, live)


def _judge_filter(
    judged: Filter, keys: Mapping[str, ScorerKey], scores: Mapping[str, Batch], verdicts: Verdicts, live: np.ndarray
) -> None:
    maker = next(name for name, key in keys.items() if judged.column in key.outputs)
    values = scores[maker][judged.column][live]
    fails = np.array([not judged.keeps(value) for value in values], dtype=bool)
    if fails.any():
        shown = [_text(value) for value in values[fails]]
        verdicts.end(live[fails], DROPPED, judged.name, shown, [judged.rule] * len(shown))


def known_answers(keys: Sequence[ScorerKey], found: Mapping[str, PartScores], sha256s: Sequence[str | None]) -> Any:
    """What is known of the images: scores and which have them, both by scorer."""
    scores = {key.name: found[key.name].of(sha256s) for key in keys}
    known = {key.name: found[key.name].known(sha256s) for key in keys}
    return scores, known


def _handed_columns(config: CurationConfig) -> list[tuple[str, str]]:
    """Every column that a dataset takes, with the dataset's name."""
    found = [(name, column) for name, one in config.datasets.items() for column in (one.caption, one.texts)]
    return [(name, column) for name, column in found if column]


def _makers(scorers: Mapping[str, Scorer]) -> dict[str, str]:
    makers: dict[str, str] = {}
    for name, scorer in scorers.items():
        for column in scorer.outputs:
            if column in makers:
                raise ConfigError(
                    f"the scorers {makers[column]} and {name} both make the column {column!r}, so a threshold could "
                    "mean either. Give one of them another name."
                )
            makers[column] = name
    return makers


def _decisive(step: SelectionStep, seed: int) -> list[Any]:
    """What of a global step decides its result."""
    numbers = [step.max_distance, step.num_clusters, step.per_cluster, step.train_images, step.max_similarity]
    return [step.kind, step.column, *numbers, seed]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{float(value):.6g}" if isinstance(value, int | float | np.number) else str(value)
