"""Whether stages fit where they are placed, and what would help."""

from dataclasses import replace
from typing import Any

import pytest

from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.planning.cost import cost_of
from vl3.planning.fit import all_shardings, check_fit
from vl3.planning.rows import assumed_rows
from vl3.planning.sizes import model_sizes
from vl3.planning.stage import Place, planned_stage, to_json
from vl3.recipes.catalog import get_recipe


def recipe(name: str, *overrides: str) -> RunConfig:
    return apply_overrides(get_recipe(name), list(overrides))


@pytest.mark.parametrize("name", ["tiny", "vl3_2b", "vl3_7b"])
def test_our_recipes_fit(name: str) -> None:
    config = get_recipe(name)
    assert check_fit(config, config.stages).problems == ()


def test_a_stage_that_cannot_fit_is_refused_with_numbers_and_remedy() -> None:
    config = recipe("vl3_7b", "placements.alignment.gpu=a100", "engine.recompute=none")
    (problem,) = check_fit(config, ["alignment"]).problems
    text = str(problem)
    assert text.startswith("stage alignment does not fit where placements.alignment puts it: one a100 needs ")
    assert "and has 74.3 of 79 (weights 15.0, optimizer 5.6" in text
    assert "Set engine.zero_stage=" in text
    assert "Or set engine.fit_check=warn" in text
    sharding = text.partition("engine.zero_stage=")[2]
    changed = recipe(
        "vl3_7b",
        "placements.alignment.gpu=a100",
        f"engine.zero_stage={sharding[0]}",
        f"engine.recompute={sharding.partition('recompute=')[2].partition(',')[0]}",
    )
    assert check_fit(changed, ["alignment"]).problems == ()


def test_what_no_layout_fits_needs_other_hardware() -> None:
    config = recipe("vl3_7b", "placements.video.gpu=a10g", "placements.video.memory_gib=130")
    (problem,) = check_fit(config, ["video"]).problems
    assert "No ZeRO stage and recomputation fits there: use more GPUs or larger ones" in str(problem)


def test_warn_and_off_let_it_pass() -> None:
    bad = ("placements.video.gpu=a10g",)
    warned = check_fit(recipe("vl3_7b", *bad, "engine.fit_check=warn"), ["video"])
    assert warned.problems == ()
    assert "stage video does not fit" in warned.notes[0]
    assert check_fit(recipe("vl3_7b", *bad, "engine.fit_check=off"), ["video"]).notes == ()


def test_the_fewest_nodes_of_a_placement_count() -> None:
    config = recipe("vl3_7b", "placements.video.min_nodes=1", "placements.video.memory_gib=200")
    (problem,) = check_fit(config, ["video"]).problems
    assert "a node needs 2" in str(problem)
    assert "of host memory and its pod has 200" in str(problem)


def test_an_unknown_or_missing_device_is_refused() -> None:
    (unknown,) = check_fit(recipe("vl3_2b", "placements.video.gpu=h20"), ["video"]).problems
    assert "GPU 'h20' is unknown" in str(unknown)
    config = get_recipe("vl3_2b")
    bare = replace(config, placements=config.placements | {"video": replace(config.placements["video"], gpu="")})
    (missing,) = check_fit(bare, ["video"]).problems
    assert "placements.video.gpu is not set" in str(missing)


def test_sizes_that_are_not_known_are_told_and_stop_nothing() -> None:
    config = recipe("vl3_2b", "model.language_base=hf://someone/model")
    findings = check_fit(config, config.stages)
    assert findings.problems == ()
    assert "the sizes of hf://someone/model are not known" in findings.notes[0]


def test_the_cheapest_layout_that_fits_comes_first() -> None:
    config, place = get_recipe("vl3_2b"), Place(gpu="h200", gpus=16, gpus_per_node=8, price_per_gpu_hour=2.0)
    model, notes = model_sizes(config.model)
    assert notes == []
    plans = all_shardings(config, "alignment", place, model, assumed_rows(config, "alignment"))
    assert len(plans) == 4 * 3 + 3 * 3
    fitting = [plan for plan in plans if not plan.problems]
    assert plans[: len(fitting)] == fitting
    assert [plan.hours for plan in fitting] == sorted(plan.hours for plan in fitting)
    sharding = fitting[0].sharding
    assert (sharding.zero_stage, sharding.recompute, sharding.offload_optimizer) == (2, "none", False)
    assert fitting[0].cost.amount == pytest.approx(fitting[0].hours * 16 * 2.0)


def test_a_planned_stage_as_json() -> None:
    config: Any = recipe("vl3_2b", "placements.video.price_per_gpu_hour=3")
    found = to_json(planned_stage(config, "video"))
    assert found["gpus"] == 16
    assert found["fits"] is True
    assert found["gpu_hours"] == pytest.approx(found["hours"] * 16)
    assert found["cost"] == pytest.approx(found["gpu_hours"] * 3)
    assert found["samples"] == pytest.approx(5_710_000, rel=0.01)
    assert 0.2 < found["mfu"] < 0.6
    assert sum(found["step_seconds"].values()) == pytest.approx(2 * found["step_seconds"]["whole"])


def test_cost_without_a_price() -> None:
    assert cost_of(10.0, 8, None, "EUR").in_words() == "80 GPU-hours, price unknown"
    assert cost_of(10.0, 8, 2.5, "EUR").in_words() == "80 GPU-hours, 200 EUR"


def test_a_cpu_pool_has_nothing_to_plan() -> None:
    with pytest.raises(ConfigError, match=r"placements\.video has no GPUs"):
        planned_stage(get_recipe("tiny"), "video")
