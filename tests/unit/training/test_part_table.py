"""What trains against the stage table: the rows, and each way in which they can differ."""

from collections.abc import Callable
from typing import Any

import pytest

from vl3.config.stages import LearningRates, LoraConfig
from vl3.errors import ConfigError
from vl3.models.lora import add_adapters
from vl3.training.optimizer_groups import freeze_parts, parameter_groups
from vl3.training.part_table import require_rates, require_stage_table, table_text

RATES = LearningRates(vision=1e-5, projector=1e-3, language=None)


@pytest.fixture
def made(make_model: Callable[[], Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    parts = make_model().parts()
    freeze_parts(parts, RATES)
    return parts, parameter_groups(parts, RATES, weight_decay=0.01)


def check(parts: Any, groups: Any, rates: LearningRates = RATES, *, adapters_only: bool = False) -> Any:
    return require_stage_table(parts, groups, rates, adapters_only=adapters_only, stage="video")


def test_the_table_says_what_trains_with_which_rate(made: Any) -> None:
    rows = check(*made)
    text = table_text(rows)
    assert [row.part for row in rows] == ["vision", "projector", "language"]
    assert [row.trained == row.parameters for row in rows] == [True, True, False]
    assert (rows[2].trained, rows[0].peak_rates, rows[0].weight_decays) == (0, (1e-5,), (0.01, 0.0))
    lines = text.splitlines()
    assert lines[0].split() == ["part", "parameters", "trained", "peak", "rate", "weight", "decay"]
    assert lines[1].split() == ["vision", f"{rows[0].parameters:,}", f"{rows[0].trained:,}", "1e-05", "0.01,", "0"]
    assert lines[3].split() == ["language", f"{rows[2].parameters:,}", "0", "frozen"]


def test_a_part_that_was_frozen_by_mistake_is_refused(made: Any) -> None:
    parts, groups = made
    with pytest.raises(ConfigError, match=r"stages\.video: vision would train 0 of its [\d,]+ parameters with frozen"):
        check(parts, [group for group in groups if group["part"] != "vision"])


def test_a_part_that_should_be_frozen_is_refused(made: Any) -> None:
    parts, groups = made
    frozen = LearningRates(vision=None, projector=1e-3, language=None)
    with pytest.raises(ConfigError, match=r"vision would train ([\d,]+) of its \1 .* stage table says 0 with none"):
        check(parts, groups, frozen)


def test_another_rate_is_refused_before_and_after_the_engine(made: Any) -> None:
    parts, groups = made
    rows = check(parts, groups)
    require_rates(groups, rows)
    groups[0]["peak_lr"] = 2e-5
    with pytest.raises(ConfigError, match=r"with 2e-05, 1e-05, and the stage table says [0-9,]+ with 1e-05"):
        check(parts, groups)
    with pytest.raises(ConfigError, match="engine's optimizer has the peak rates"):
        require_rates(groups, rows)


def test_of_lora_only_the_adapters_count(make_model: Callable[[], Any]) -> None:
    model, rates = make_model(), LearningRates(vision=None, projector=None, language=1e-4)
    add_adapters(model, LoraConfig(rank=2), seed=0)
    parts = model.parts()
    freeze_parts(parts, rates, adapters_only=True)
    rows = check(parts, parameter_groups(parts, rates, weight_decay=0.0), rates, adapters_only=True)
    assert 0 < rows[2].trained < rows[2].parameters
