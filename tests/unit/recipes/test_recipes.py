"""The recipes hold the paper's numbers (arXiv 2501.13106), and the catalog names them."""

import pytest

from tests.support.workflows import STAGES
from vl3.config.stages import LearningRates
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe, recipe_names
from vl3.recipes.mixture import load_mixture

BIG = ("vl3_2b", "vl3_7b")


def test_catalog_holds_each_recipe_under_its_own_name() -> None:
    assert recipe_names() == ["tiny", "vl3_2b", "vl3_7b"]
    assert [get_recipe(name).name for name in recipe_names()] == recipe_names()


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        get_recipe("vl3_2")
    assert str(caught.value) == "recipe 'vl3_2' is unknown. The nearest is 'vl3_2b'; all are tiny, vl3_2b, vl3_7b."


SAMPLES = dict(zip(STAGES, (15_570_000, 21_970_000, 19_050_000, 5_711_200), strict=True))
"""The paper's total of each stage."""


@pytest.mark.parametrize(("stage", "samples"), SAMPLES.items())
def test_mixture_sums_to_the_papers_total(stage: str, samples: int) -> None:
    assert sum(load_mixture("vl3", stage).values()) == samples


@pytest.mark.parametrize("name", BIG)
def test_big_recipe_has_the_papers_rates(name: str) -> None:
    stages = get_recipe(name).stages
    assert stages["vision_adaptation"].learning_rates == LearningRates(vision=1e-5, projector=1e-3, language=None)
    for stage in ("alignment", "multitask", "video"):
        assert stages[stage].learning_rates == LearningRates(vision=2e-6, projector=1e-5, language=1e-5)


@pytest.mark.parametrize("name", BIG)
def test_big_recipe_has_the_papers_limits(name: str) -> None:
    config = get_recipe(name)
    assert (config.data.max_length_tokens, config.data.visual_budget_tokens) == (16384, 10240)
    assert (config.data.video_fps, config.data.max_frames, config.data.difffp_threshold) == (1.0, 180, 0.1)
    assert (config.optimizer.warmup_ratio, config.engine.zero_stage, config.engine.precision) == (0.03, 1, "bf16")


@pytest.mark.parametrize("name", recipe_names())
def test_difffp_and_merging_follow_the_stage_table(name: str) -> None:
    stages = get_recipe(name).stages
    assert [stages[stage].difffp for stage in STAGES] == [False, False, True, True]
    assert [stages[stage].image_merge_size for stage in STAGES] == [1, 1, 1, 2]
    assert [stages[stage].video_merge_size for stage in STAGES] == [2, 2, 2, 2]


def test_a_big_stage_is_one_epoch_with_the_released_batch() -> None:
    for row in get_recipe("vl3_2b").stages.values():
        assert (row.steps, row.epochs, row.packs_per_step, row.samples_per_step) == (None, 1.0, None, 128)


def test_7b_differs_from_2b_in_its_bases_and_name_alone() -> None:
    small, large = get_recipe("vl3_2b"), get_recipe("vl3_7b")
    assert large.model.language_base == "hf://Qwen/Qwen2.5-7B-Instruct"
    assert large.model.vision_base == "hf://DAMO-NLP-SG/VideoLLaMA3-2B"
    assert (large.stages, large.data, large.optimizer) == (small.stages, small.data, small.optimizer)
    assert large.promotion.registered_model != small.promotion.registered_model
