"""What a stage asks of its datasets: the request, and the samples that each key of its mixture may draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vl3.config.mixture import ONLY_DATASET, Mixture, MixtureKey
from vl3.data.build.index import read_row
from vl3.data.plan.kinds import ServedKind, require_served, serve_mixture
from vl3.data.plan.mixture import choose_rows
from vl3.data.plan.samples import SampleTable, SizeRule
from vl3.errors import DataError

_NAMED_SAMPLES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRequest:
    """What a plan is made for. Of `steps` and `epochs` one is set, and of `packs_per_step` and `samples_per_step`."""

    datasets: tuple[str, ...] = (ONLY_DATASET,)
    """Names of the datasets, in the order of their folders."""
    mixture: Mixture
    """What is drawn, and how much."""
    missing: str = "refuse"
    """`refuse`, or `drop` what the mixture asks for and the datasets do not have."""
    seed: int
    """Seed of the order."""
    steps: int | None
    """Optimizer steps."""
    epochs: float | None
    """How often the mixture's amounts are drawn; the last step is filled up."""
    packs_per_step: int | None
    """Rows of a step over all ranks."""
    samples_per_step: int | None
    """Samples that a step should have, about: the rows that hold as many are counted off."""
    packs_divisible_by: int
    """The rows of a step are then a multiple of this, so that each number of ranks that divides it can share them."""
    max_length_tokens: int
    """Tokens that a row may have."""
    max_row_visual_tokens: int
    """Vision tokens that a row may have, before DiffFP."""
    sizes: SizeRule
    """How large the samples are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What the mixture asks of the samples that fit into a row."""

    served: list[ServedKind]
    """What the datasets have of each key."""
    rows: list[np.ndarray]
    """Numbers of the samples of each kind, int64."""
    categories: list[tuple[str, ...]]
    """Categories of the samples of each kind."""
    notes: list[str]
    """A sentence on each thing that is left out."""


def find_demand(table: SampleTable, folders: Sequence[Path], request: PlanRequest) -> Demand:
    """Look up the mixture, without samples that no row can hold: they would never be packed. Notes name some.

    Raises:
        DataError: something is missing that must not be, or no sample fits the mixture and the limits.
    """
    fits, too_large = _fits(table, folders, request)
    names = [(request.datasets[dataset], category, source) for dataset, category, source in table.source_names]
    found = np.bincount(table.sources[fits], minlength=len(names)).tolist()
    counts = {name: count for name, count in zip(names, found, strict=True) if count}
    served = serve_mixture(request.mixture, counts)
    notes = require_served(served, request.missing, counts)
    keys = [MixtureKey.parse(key) for key in request.mixture]
    wanted = [np.array([key.names(*name) for name in names], dtype=np.bool_) for key in keys]
    rows = [np.flatnonzero(mine[table.sources] & fits) for mine in wanted]
    return Demand(
        served=served,
        rows=[choose_rows(kind.key, mine, kind.available) for kind, mine in zip(served, rows, strict=True)],
        categories=[tuple(sorted({name[1] for name in counts if key.names(*name)})) for key in keys],
        notes=[*notes, *too_large],
    )


def _fits(table: SampleTable, folders: Sequence[Path], request: PlanRequest) -> tuple[np.ndarray, list[str]]:
    """Which samples a row can hold, bool (S), and a note that names some of the others."""
    length, visual = request.max_length_tokens, request.max_row_visual_tokens
    fits = (table.sizes["length_tokens"] <= length) & (table.sizes["visual_tokens"] <= visual)
    too_large = np.flatnonzero(~fits)
    limits = f"{length} tokens or {visual} vision tokens"
    if not len(too_large):
        return fits, []
    if len(too_large) == len(table):
        raise DataError(
            f"all {len(table)} usable training samples have more than {limits} with this stage's settings, so no row "
            "can hold one. Raise data.max_length_tokens or data.max_row_visual_tokens, or build the dataset with a "
            "smaller data.visual_budget_tokens."
        )
    names = ", ".join(_sample_id(table, folders, number) for number in too_large[:_NAMED_SAMPLES].tolist())
    more = ", ..." if len(too_large) > _NAMED_SAMPLES else ""
    note = (
        f"{len(too_large)} sample(s) have more than {limits} with this stage's settings and are left out: {names}{more}"
    )
    return fits, [note]


def _sample_id(table: SampleTable, folders: Sequence[Path], number: int) -> str:
    place = table.places[number]
    return str(read_row(folders[int(place["dataset"])], int(place["row"]), ["sample_id"])["sample_id"])
