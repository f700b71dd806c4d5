"""The rows of a stage: those of its plan, or, before there is one, those that the recipe's mixture lets expect."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vl3.config.data import Category
from vl3.config.mixture import MixtureKey, draw_of
from vl3.config.run import RunConfig
from vl3.data.catalogue.entry import Entry, read_catalogue
from vl3.planning.shapes import RowShape

_FILL = 0.99
"""How full rows are of what binds (docs/benchmarks.md)."""
_READ_ROWS = 65_536
"""Rows of a plan that are looked at, evenly spread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    """What a sample of a kind is taken to have where no plan says it."""

    patches: int
    frames: int
    text_tokens: int


_IMAGE = _Sample(patches=1600, frames=1, text_tokens=200)
_VIDEO = _Sample(patches=36_000, frames=60, text_tokens=400)
_TEXT = _Sample(patches=0, frames=0, text_tokens=600)
_ASSUMED = (
    "without a plan: an image has 1,600 patches and 200 tokens of text, a video 36,000 patches in 60 frames and 400 "
    "tokens, a text 600 tokens; rows are 99 % full of what binds; all tokens of text are supervised, DiffFP drops none"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRows:
    """The rows of a stage."""

    steps: int
    """Optimizer steps."""
    packs_per_step: int
    """Rows of a step over all ranks."""
    samples: int
    """Samples of all steps."""
    mean: RowShape
    """What a row is on average."""
    largest: RowShape
    """As large as the largest row in every count."""
    imbalance: float
    """Share of a step in which ranks wait for the one with the costliest rows."""
    assumptions: tuple[str, ...]
    """What had to be assumed."""


def planned_rows(folder: Path, ranks: int) -> StageRows:
    """The rows of a plan that `plan-<stage>` has written.

    Raises:
        DataError: it is no complete plan, or was damaged.
    """
    import numpy as np

    from vl3.data.plan.stage_plan import StagePlan
    from vl3.planning.row_shapes import shapes_of_packs

    with StagePlan(folder) as plan:
        facts = plan.facts
        chosen = np.unique(np.linspace(0, facts.steps - 1, max(1, _READ_ROWS // facts.packs_per_step)).astype(int))
        shapes = [shape for step in chosen.tolist() for shape in shapes_of_packs(plan.table(step))]
    waiting = [one.mean for one in facts.balance if one.ranks >= ranks]
    return StageRows(
        steps=facts.steps,
        packs_per_step=facts.packs_per_step,
        samples=facts.samples,
        mean=RowShape.mean(shapes),
        largest=RowShape.largest(shapes),
        imbalance=waiting[0] if waiting and ranks > 1 else 0.0,
        assumptions=("all tokens of text are supervised, and DiffFP drops none but those that make rows shorter",),
    )


def assumed_rows(config: RunConfig, stage: str) -> StageRows:
    """The rows that a stage's mixture lets expect: as many samples of each kind as it draws, of an assumed size.

    2B, stage 2, images and texts alone: a row takes about 6 images with 1,600 vision tokens each.
    """
    row, data = config.stages[stage], config.data
    amounts = {key: draw_of(value).amount or 1.0 for key, value in row.mixture.items()}
    kinds = [(_kind_of(key), amount) for key, amount in amounts.items()]
    total = sum(amount for _, amount in kinds)
    merge = {True: row.video_merge_size**2, False: row.image_merge_size**2}
    limit = data.visual_budget_tokens

    def mean(values: Iterable[float]) -> float:
        return sum(value * amount for value, (_, amount) in zip(values, kinds, strict=True)) / total

    visual = [min(sample.patches / merge[sample.frames > 1], limit) for sample, _ in kinds]
    patches = [tokens * merge[sample.frames > 1] for tokens, (sample, _) in zip(visual, kinds, strict=True)]
    text = [min(sample.text_tokens, data.max_length_tokens - limit) for sample, _ in kinds]
    lengths = [tokens + words for tokens, words in zip(visual, text, strict=True)]
    per_row = _FILL * min(
        data.max_row_visual_tokens / max(mean(visual), 1e-9), data.max_length_tokens / max(mean(lengths), 1e-9)
    )
    per_row = max(per_row, 1.0)
    shape = RowShape(
        length_tokens=per_row * mean(lengths),
        length_pairs=per_row * mean(length**2 for length in lengths),
        patches=per_row * mean(patches),
        patch_pairs=per_row * mean(p**2 / max(s.frames, 1) for p, (s, _) in zip(patches, kinds, strict=True)),
        projected_tokens=per_row * mean(visual),
        supervised_tokens=per_row * mean(text),
    )
    packs = row.packs_per_step or _packs(row.samples_per_step or 1, per_row, row.packs_divisible_by)
    steps = row.steps or math.ceil(total * (row.epochs or 1.0) / per_row / packs)
    return StageRows(
        steps=steps,
        packs_per_step=packs,
        samples=round(steps * packs * per_row),
        mean=shape,
        largest=largest_row(config, stage),
        imbalance=0.0,
        assumptions=(_ASSUMED,),
    )


def largest_row(config: RunConfig, stage: str) -> RowShape:
    """The largest row that the limits allow: full of tokens, and its vision tokens those of videos if it draws any."""
    row, data = config.stages[stage], config.data
    has_video = any(_kind_of(key).frames > 1 for key in row.mixture)
    merge = row.video_merge_size if has_video else row.image_merge_size
    visual, length = float(data.max_row_visual_tokens), float(data.max_length_tokens)
    patches = visual * merge**2
    return RowShape(
        length_tokens=length,
        length_pairs=length**2,
        patches=patches,
        patch_pairs=patches * data.visual_budget_tokens,
        projected_tokens=visual,
        supervised_tokens=length - min(visual, length / 2),
    )


def _packs(samples: int, per_row: float, unit: int) -> int:
    """The multiple of `unit` that comes nearest to a step of so many samples."""
    return unit * max(1, round(samples / per_row / unit))


def _kind_of(key: str) -> _Sample:
    """What a key of a mixture draws: by its category, or by the rows of the paper's tables that name the dataset."""
    parsed = MixtureKey.parse(key)
    words = " ".join(_rows_of(parsed.dataset)) if parsed.category is None else str(parsed.category)
    if parsed.category == Category.TEXT_ONLY or "text-only" in words:
        return _TEXT
    return _VIDEO if any(word in words for word in ("video", "streaming", "temporal")) else _IMAGE


@cache
def _catalogue() -> Mapping[str, Entry]:
    return read_catalogue().datasets


def _rows_of(dataset: str | None) -> tuple[str, ...]:
    """Rows of the paper's tables of a dataset; `vl3_syn7m-short` is an extract of `vl3_syn7m`."""
    names = (dataset or "", (dataset or "").rpartition("-")[0])
    entries = _catalogue()
    return next((entries[name].rows for name in names if name in entries), ())
