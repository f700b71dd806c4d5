"""Rounds of a recipe, and what becomes of images."""

import numpy as np
import pytest

from tests.support.curation import small_recipe, small_scorers
from vl3.config.curation import HandedDataset, SelectionStep
from vl3.curation.rounds import DROPPED, FAILED, KEPT, OPEN, Operation, Verdicts, judge, plan_rounds, scorer_keys
from vl3.curation.scorer import Filter
from vl3.errors import ConfigError


def test_a_global_step_ends_a_round_and_scorers_run_when_they_are_needed() -> None:
    rounds = plan_rounds(small_recipe(), small_scorers(), "input")
    shown = [([one.scorer or one.filter.name for one in found.operations], found.closing) for found in rounds]
    assert shown == [
        (["facts", "shape"], "equal"),
        ([], "similar"),
        (["brightness", "light"], "spread"),
        ([], ""),
    ]


def test_keys_of_earlier_rounds_do_not_hang_on_later_thresholds() -> None:
    base, changed = small_recipe(), small_recipe()
    changed.steps["light"] = SelectionStep(kind="filter", column="brightness", minimum=101, source="ours: test")
    first, second = (plan_rounds(one, small_scorers(), "input") for one in (base, changed))
    assert [a.key == b.key for a, b in zip(first, second, strict=True)] == [True, True, False, False]
    assert first[1].closed_key == second[1].closed_key
    assert plan_rounds(base, small_scorers(), "other")[0].key != first[0].key


def test_a_column_that_nobody_makes_is_named() -> None:
    with pytest.raises(ConfigError, match="dataset short takes the column 'captoin', which no scorer makes"):
        plan_rounds(small_recipe(datasets={"short": HandedDataset(caption="captoin")}), small_scorers(), "input")


def test_what_becomes_of_images_is_said_once() -> None:
    keys = scorer_keys(small_scorers())
    light = Filter(name="light", column="brightness", minimum=100, source="test")
    operations = [Operation(scorer="brightness"), Operation(filter=light)]
    scores = {
        "brightness": {
            "brightness": np.array([150, 50, np.nan, np.nan], dtype=np.float32),
            "brightness_error": np.array([None, None, "no picture", None], dtype=object),
        }
    }
    verdicts = Verdicts.all_kept(4)
    judge(operations, keys, scores, {"brightness": np.array([True, True, True, False])}, verdicts)
    assert verdicts.status.tolist() == [KEPT, DROPPED, FAILED, OPEN]
    assert verdicts.step.tolist() == ["", "light", "brightness", ""]
    assert verdicts.value.tolist() == ["", "50", "", ""]
    assert verdicts.rule.tolist() == ["", ">= 100", "no picture", ""]
