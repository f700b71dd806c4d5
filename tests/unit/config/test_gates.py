"""Gates as data: what is refused when a recipe is made, and how an override changes or adds one."""

from typing import Any

import pytest

from vl3.config.gates import GateConfig
from vl3.config.overrides import apply_overrides
from vl3.config.run import PromotionConfig
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe

TINY = get_recipe("tiny")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"rule": "best"},
            "gate.rule='best' is unknown. Choose one of at_least, above_chance, not_worse",
        ),
        ({"scope": "../x"}, "gate.scope='../x' names nothing that can be judged."),
        ({"scope": "heldout/*/x"}, "gate.scope='heldout/*/x' names nothing"),
        ({"threshold": 85.0}, "gate.threshold=85 is no share, and the rule at_least takes one."),
        ({"threshold": -0.1}, "gate.threshold=-0.1 is negative."),
        ({"threshold": float("nan")}, "gate.threshold=nan must be"),
        ({"confidence": 0.5}, "gate.confidence=0.5 is unknown. Choose one of 0.8, 0.9, 0.95, 0.975, 0.99"),
        ({"rule": "answered", "confidence": 0.95}, "gate.confidence=0.95 has no meaning for the rule answered"),
        ({"rule": "above_chance"}, "a model that guesses is above chance in half of all cases"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_row_that_makes_no_sense_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GateConfig(**{"scope": "heldout", "rule": "at_least", "threshold": 0.5, **row})
    assert message in str(caught.value)


def test_items_are_a_number_and_no_share() -> None:
    assert GateConfig(scope="every", rule="items", threshold=500).threshold == 500


def test_without_a_gate_that_looks_at_scores_nothing_would_be_refused() -> None:
    counting = {"answered": GateConfig(scope="every", rule="answered", threshold=0.9)}
    for gates in ({}, counting):
        with pytest.raises(ConfigError, match="no gate that looks at a score, so any model would become champion"):
            PromotionConfig(registered_model="m", gates=gates)
    with pytest.raises(ConfigError, match=r"promotion\.gates='a/b' cannot name"):
        PromotionConfig(registered_model="m", gates={"a/b": TINY.promotion.gates["mean_accuracy"]})


def test_an_override_changes_a_gate_or_adds_one() -> None:
    row = '{"scope": "heldout/chart", "rule": "at_least", "threshold": 0.9, "confidence": 0.95}'
    changed = apply_overrides(
        TINY,
        [
            "promotion.gates.task_accuracy.threshold=0.5",
            f"promotion.gates.charts={row}",
        ],
    )
    assert changed.promotion.gates["task_accuracy"].threshold == 0.5
    assert list(changed.promotion.gates) == [*TINY.promotion.gates, "charts"]
    assert changed.promotion.gates["charts"].confidence == 0.95
    with pytest.raises(ConfigError, match="threshhold"):
        apply_overrides(TINY, ["promotion.gates.task_accuracy.threshhold=0.5"])
