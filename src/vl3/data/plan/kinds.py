"""The kinds of a mixture: what a stage asks for, what the datasets have, and how much of each is drawn.

Counts are enough for all of it: validation asks here whether a stage can be served, and the planner draws by it.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vl3.config.data import Category
from vl3.config.mixture import Mixture, MixtureKey, draw_of
from vl3.errors import DataError

SampleCounts = Mapping[tuple[str, str, str], int]
"""Usable training samples by dataset, category and source."""
_NAMED = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedKind:
    """One key of a mixture and what the datasets have of it."""

    key: str
    """`DATASET` or `[DATASET:]CATEGORY[:SOURCE]`."""
    amount: float
    """Samples that the stage asks for in an epoch; of a stage of `steps` only the proportions count."""
    available: int
    """Different samples that may be drawn; 0 if they are missing."""
    max_draws: int | None
    """Draws of the stage that `max_epochs` allows."""
    problem: str
    """Why nothing can be drawn, as a sentence; empty if something can."""


def serve_mixture(mixture: Mixture, counts: SampleCounts) -> list[ServedKind]:
    """What the datasets have of each key, in the mixture's order. Nothing stands in for what is missing.

    {"chart:qa": 10, "text_only": {"epochs": 2, "cap": 50}} with 80 samples of chart:caption and 60 of text_only in the
    data: chart:qa is missing, text_only has 50 samples, and the stage asks for 100 in an epoch.
    """
    return [_serve(key, mixture, counts) for key in mixture]


def _serve(key: str, mixture: Mixture, counts: SampleCounts) -> ServedKind:
    draw, named = draw_of(mixture[key]), MixtureKey.parse(key)
    available = sum(count for sample, count in counts.items() if named.names(*sample))
    available = min(available, draw.cap or available)
    return ServedKind(
        key=key,
        amount=draw.amount or available * (draw.epochs or 0.0),
        available=available,
        max_draws=None if draw.max_epochs is None else math.ceil(draw.max_epochs * available),
        problem="" if available else f"{key}: {_why_missing(named, counts)}",
    )


def _why_missing(named: MixtureKey, counts: SampleCounts) -> str:
    """What of a key the data lack: the dataset, its category, or the category's source."""
    if named.dataset is not None:
        in_dataset = {sample for sample in counts if sample[0] == named.dataset}
        if not in_dataset:
            words = difflib.get_close_matches(named.dataset, [*(name for name, _, _ in counts), *Category], n=1)
            hint = f" (did you mean {words[0]}?)" if words else ""
            return f"there is no dataset {named.dataset} with a usable training sample{hint}"
    place = f"the dataset {named.dataset} has" if named.dataset else "the data have"
    of_category = sorted(
        {
            source
            for dataset, category, source in counts
            if MixtureKey.names(_without_source(named), dataset, category, source)
        }
    )
    if named.source is not None and of_category:
        return (
            f"{place} no usable training sample of this source; its sources of {named.category}: {_listed(of_category)}"
        )
    return f"{place} no usable training sample of the category {named.category}"


def _without_source(named: MixtureKey) -> MixtureKey:
    return MixtureKey(dataset=named.dataset, category=named.category, source=None)


def require_served(kinds: Sequence[ServedKind], missing: str, counts: SampleCounts) -> list[str]:
    """Check that a stage can be served; a note on each kind that it goes without.

    Args:
        kinds: what `serve_mixture` found.
        missing: the stage's setting, `refuse` or `drop`.
        counts: what the datasets have, for the message.

    Raises:
        DataError: something is missing and `missing` is `refuse`, or nothing at all can be drawn.
    """
    problems = [kind.problem for kind in kinds if kind.problem]
    if len(problems) == len(kinds):
        raise DataError(
            f"the data have nothing that the stage's mixture asks for. {_sentences(problems)} Usable training samples: "
            f"{_summary(counts)}. Change the stage's mixture or the data."
        )
    if problems and missing == "refuse":
        raise DataError(
            f"the data lack {len(problems)} of the {len(kinds)} kinds that the stage's mixture asks for. "
            f"{_sentences(problems)} Usable training samples: {_summary(counts)}. Add the data, take the kinds out of "
            "the stage's mixture, or set its `missing` to drop to train without them."
        )
    return [f"{problem}; it is left out (missing=drop)" for problem in problems]


def _sentences(problems: list[str]) -> str:
    more = len(problems) - _NAMED
    named = ". ".join(problems[:_NAMED])
    return f"{named}. And {more} more." if more > 0 else f"{named}."


def _summary(counts: SampleCounts) -> str:
    """`scene_image:caption 20, chart:qa 5`, of several datasets with their names."""
    several = len({dataset for dataset, _, _ in counts}) > 1
    names = [
        f"{f'{dataset}:' if several else ''}{category}:{source} {count}"
        for (dataset, category, source), count in sorted(counts.items(), key=lambda item: -item[1])
        if count
    ]
    return _listed(names) or "none"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def fill_draws(kinds: Sequence[ServedKind], *, epochs: float | None, total: float | None) -> list[float]:
    """Draws of each kind in a stage: for a number of epochs, or for a total number of draws.

    What `max_epochs` takes from a kind, a stage of epochs draws less; in a total the others get it, by their amounts.
    Amounts 2, 1 and 1, of which the first may be drawn 3 times: two epochs draw 3, 2, 2; a total of 12 gives 3, 4.5,
    4.5.
    """
    limits = [math.inf if kind.max_draws is None else float(kind.max_draws) for kind in kinds]
    wanted = [kind.amount if kind.available else 0.0 for kind in kinds]
    if epochs is not None:
        return [min(epochs * amount, limit) for amount, limit in zip(wanted, limits, strict=True)]
    draws, left = [0.0] * len(kinds), float(total or 0.0)
    open_kinds = [position for position, amount in enumerate(wanted) if amount]
    while open_kinds:
        scale = left / sum(wanted[position] for position in open_kinds)
        full = [position for position in open_kinds if wanted[position] * scale > limits[position]]
        for position in full or open_kinds:
            draws[position] = min(wanted[position] * scale, limits[position])
        if not full:
            break
        left -= sum(draws[position] for position in full)
        open_kinds = [position for position in open_kinds if position not in full]
    return draws
