"""The gates of a promotion as rows of data: what is judged, by which rule, against which threshold."""

import re
from dataclasses import dataclass
from typing import Annotated

from vl3.config.checks import OneOf, Range, check_fields, require_name
from vl3.errors import ConfigError
from vl3.proportions import CONFIDENCES

HELDOUT = "heldout"
"""The benchmark that a dataset itself holds out; its parts are the categories, with equal weights."""
AT_LEAST = "at_least"
ABOVE_CHANCE = "above_chance"
NOT_WORSE = "not_worse_than_champion"
ANSWERED = "answered"
JUDGED = "judged"
ITEMS = "items"
RULES = (AT_LEAST, ABOVE_CHANCE, NOT_WORSE, ANSWERED, JUDGED, ITEMS)

EVERY = "every"
"""Scope of a gate that judges each benchmark of the evaluation on its own."""
PARTS = "/*"
"""End of the scope of a gate that judges each part of a benchmark on its own."""
_SCOPE = re.compile(r"[A-Za-z0-9][\w.-]{0,99}(/(\*|[A-Za-z0-9][\w. -]{0,99}))?")
_WITH_CONFIDENCE = (AT_LEAST, ABOVE_CHANCE, NOT_WORSE)


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """One gate. Scores are from 0 to 1, whatever scale a benchmark is published on."""

    scope: str
    """What is judged: a benchmark (`heldout`, `videomme`) or a group of them (`image`, `video`), by its mean;
    `heldout/*`, each part of a benchmark on its own; `heldout/chart`, one part; `every`, each benchmark on its own."""
    rule: Annotated[str, OneOf(RULES)]
    """`at_least`: the score reaches the threshold. `above_chance`: it is above guessing by more than the threshold;
    where chance is unknown, above the best constant answer, and where that is unknown, too, the gate says that it
    cannot tell. `not_worse_than_champion`: on the same questions it falls below the champion's by no more than the
    threshold. `answered`: so large a share of the items did not fail. `judged`: so large a share needed no judge or got
    one. `items`: so many items were asked."""
    threshold: Annotated[float, Range(at_least=0, at_most=1_000_000)]
    """A score, a difference of scores or a share from 0 to 1; for `items` their number."""
    confidence: Annotated[float, OneOf((*CONFIDENCES, None))] | None = None
    """How sure it must be (one-sided): the bound that the true value is above with this confidence is judged. None
    judges what was measured."""

    def __post_init__(self) -> None:
        check_fields(self, "gate")
        if not _SCOPE.fullmatch(self.scope):
            raise ConfigError(
                f"gate.scope={self.scope!r:.200} names nothing that can be judged. Write a benchmark or a group of "
                "them, BENCHMARK/PART, BENCHMARK/* for each of its parts, or `every` for each benchmark."
            )
        if self.rule != ITEMS and self.threshold > 1:
            raise ConfigError(
                f"gate.threshold={self.threshold:g} is no share, and the rule {self.rule} takes one. Set a value from "
                "0 to 1: 0.85 for 85 %."
            )
        if self.confidence is not None and self.rule not in _WITH_CONFIDENCE:
            raise ConfigError(
                f"gate.confidence={self.confidence:g} has no meaning for the rule {self.rule}, which counts items. "
                "Leave it out."
            )
        if self.rule == ABOVE_CHANCE and self.confidence is None:
            raise ConfigError(
                "gate.confidence is not set for the rule above_chance: a model that guesses is above chance in half of "
                f"all cases. Set one of {', '.join(map(str, CONFIDENCES))}."
            )

    @property
    def is_each(self) -> bool:
        """Whether it judges several scores, each on its own."""
        return self.scope == EVERY or self.scope.endswith(PARTS)


def check_gates(gates: dict[str, GateConfig]) -> None:
    """Raise ConfigError unless there is a gate that looks at scores, and every name can be shown and stored."""
    for name in gates:
        require_name("promotion.gates", name)
    if not any(gate.rule in _WITH_CONFIDENCE for gate in gates.values()):
        raise ConfigError(
            "promotion.gates has no gate that looks at a score, so any model would become champion. Add one of the "
            f"rules {', '.join(_WITH_CONFIDENCE)}."
        )
