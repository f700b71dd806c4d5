"""Entries of the catalogue: the paper's 26 benchmarks, each with its task in lmms-eval, its data and its metric.

The entries are data (`templates/benchmarks.yaml`); what others reached on them is in vl3.evaluation.published. Nothing
here imports lmms-eval, so that every image can list them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from vl3.config.codec import from_dict
from vl3.errors import ConfigError

_FILE = "templates/benchmarks.yaml"
_TABLE_9 = ("chartqa", "docvqa", "ai2d", "gqa", "mme")
"""What the paper compares encoders on."""


class Need(StrEnum):
    """What a benchmark needs besides its data and a model."""

    JUDGE = "judge"
    """Every answer is judged by a model."""
    JUDGE_UNPARSED = "judge_unparsed"
    """Answers that no rule can read are judged by a model."""
    SUBMISSION = "submission"
    """The references are not public: a file of answers is scored by the benchmark's server."""
    SUBTITLES = "subtitles"
    """Texts beside the videos."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One task of lmms-eval that a benchmark consists of."""

    task: str
    """Its name there."""
    config: str | None = None
    """Configuration of the dataset, as its card names it; None if it has only one."""
    split: str
    """Split that is asked."""
    items: int
    """Number of questions of the whole split; another number is a partial copy or another version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyLayout:
    """Where a benchmark's published copy has what."""

    repository: str
    """Dataset on the hub that lmms-eval reads; a local copy has the same files."""
    columns: tuple[str, ...]
    """Columns that the task reads; a copy without one is of another version."""
    media: str | None = None
    """Folder below HF_HOME in which lmms-eval looks for media; None if they are in the dataset's own files."""
    media_folder: str = ""
    """Folder within `media` where they are, as the archives have it."""
    media_column: str | None = None
    """Column that names each question's medium."""
    media_pattern: str = "{}"
    """File of a medium within `media_folder`, from that column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """One benchmark of tables 5 to 8."""

    name: str
    title: str
    """Its name in the paper."""
    kind: str
    """`image` or `video`."""
    quick: bool = False
    """Whether the group `quick` has it."""
    parts: tuple[Part, ...]
    metric: str
    """The value of a task that is its score; of several tasks or several values the mean or sum is the benchmark's."""
    combine: str = "mean"
    """How the scores of the parts become one: `mean`, `items` (mean by number of questions) or `sum` (of values)."""
    metrics: tuple[str, ...] = ()
    """More values of the task that are summed with `metric`."""
    higher_is_better: bool = True
    scale: float = 100.0
    """Factor from the task's value to the paper's scale."""
    item_score: str = "aggregate"
    """How one question's score, from 0 to 1, follows from what the task makes of it: the task's own aggregation of that
    question alone, or the path of a value, as `videomme_perception_score.score`."""
    chance: float | None = None
    """Accuracy of guessing; None if answers are open or questions differ in their number of options."""
    submission: str = ""
    """Form of the file for the benchmark's server: `list` of what the task makes of each answer, or `merged` into one
    mapping; empty if the benchmark is scored here."""
    needs: tuple[Need, ...] = ()
    judge_reply: str = ""
    """What a judge's words must contain to be a verdict, as a regular expression; other words are none."""
    differences: tuple[str, ...] = ()
    """How the task differs from what the paper did: a reader must know them to compare the numbers."""
    layout: CopyLayout

    def __post_init__(self) -> None:
        """Refuse an entry that cannot be run."""
        if self.kind not in ("image", "video") or self.combine not in ("mean", "items", "sum") or not self.parts:
            raise ConfigError(
                f"benchmark {self.name}: kind {self.kind!r}, combine {self.combine!r} and {len(self.parts)} parts; it "
                "needs kind image or video, combine mean, items or sum, and at least one part. Correct the entry."
            )
        if not self.scale > 0:
            raise ConfigError(f"benchmark {self.name}: scale={self.scale} must be above 0. Correct the entry.")

    @property
    def items(self) -> int:
        """Number of questions of the whole benchmark."""
        return sum(part.items for part in self.parts)

    @property
    def needs_judge(self) -> bool:
        """Whether some answers are judged by a model."""
        return Need.JUDGE in self.needs or Need.JUDGE_UNPARSED in self.needs


@cache
def read_benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name, in the order of the paper's tables."""
    data: dict[str, Any] = yaml.safe_load(files("vl3.evaluation.catalogue").joinpath(_FILE).read_text(encoding="utf-8"))
    return {name: from_dict(Benchmark, {"name": name, **_spread(values)}) for name, values in data.items()}


def groups() -> dict[str, tuple[str, ...]]:
    """Names of the benchmarks of each group."""
    all_ = read_benchmarks()
    return {
        "quick": tuple(name for name, one in all_.items() if one.quick),
        "image": tuple(name for name, one in all_.items() if one.kind == "image"),
        "video": tuple(name for name, one in all_.items() if one.kind == "video"),
        "paper": tuple(all_),
        "ablation": tuple(name for name in all_ if name in _TABLE_9),
    }


def choose_benchmarks(names: Iterable[str]) -> list[Benchmark]:
    """The benchmarks of names and groups, each once, in the order of the paper's tables.

    Raises:
        ConfigError: a name is neither a benchmark nor a group, or none is given.
    """
    all_, by_group = read_benchmarks(), groups()
    wanted: set[str] = set()
    for name in names:
        if name not in all_ and name not in by_group:
            import difflib

            near = difflib.get_close_matches(name, [*all_, *by_group], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{name!r} is neither a benchmark nor a group ({', '.join(by_group)}).{hint} `vl3 eval list` has them."
            )
        wanted.update(by_group.get(name, (name,)))
    if not wanted:
        raise ConfigError(f"no benchmark is named. Name some, or a group: {', '.join(by_group)}.")
    return [one for name, one in all_.items() if name in wanted]


def _spread(values: dict[str, Any]) -> dict[str, Any]:
    """The short form of the file: `parts: [[task, config, split, items]]`."""
    parts = [dict(zip(("task", "config", "split", "items"), part, strict=True)) for part in values.pop("parts")]
    return {**values, "parts": parts}
