"""The recipes hold the paper's numbers (arXiv 2501.13106), and the catalog names them."""

import re

import pytest

from tests.support.workflows import STAGES
from vl3.config.mixture import MixtureKey, draw_of
from vl3.config.stages import LearningRates
from vl3.data.catalogue.entry import read_catalogue
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe, recipe_names
from vl3.recipes.mixture import load_mixture

BIG = ("vl3_2b", "vl3_7b")


def test_catalog_holds_each_recipe_under_its_own_name() -> None:
    assert recipe_names() == ["tiny", "vl3_2b", "vl3_7b", "ablation_tiny", "ablation"]
    assert [get_recipe(name).name for name in recipe_names()] == recipe_names()


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        get_recipe("vl3_2")
    assert str(caught.value) == (
        "recipe 'vl3_2' is unknown. The nearest is 'vl3_2b'; all are tiny, vl3_2b, vl3_7b, ablation_tiny, ablation."
    )


AMOUNTS = {"2 text-only": "1.0M", "4 temporal grounding": "205K"}
"""Rows of which the catalogue gives two amounts, or a rounded one where the paper's text is exact."""
VARIANT = re.compile(r"-(short|detailed)$")


def samples(amount: str) -> int:
    """`11.84M` is 11,840,000."""
    return round(float(amount[:-1]) * {"K": 1_000, "M": 1_000_000}[amount[-1]])


@pytest.mark.parametrize("number", range(1, 5), ids=STAGES)
def test_a_mixture_has_each_row_of_the_papers_table(number: int) -> None:
    catalogue, mixture = read_catalogue(), load_mixture("vl3", STAGES[number - 1])
    rows = {row: amount for row, amount in catalogue.rows.items() if row.startswith(f"{number} ")}
    found = dict.fromkeys(rows, 0.0)
    for key, amount in mixture.items():
        named = MixtureKey.parse(key)
        entry = catalogue.datasets[VARIANT.sub("", named.dataset or "")]
        category = {"streaming": "4 streaming video", "temporal_grounding": "4 temporal grounding"}.get(
            named.category or ""
        )
        row = category or next(row for row in entry.rows if row in rows)
        assert row in entry.rows
        found[row] += draw_of(amount).amount
    assert found == {row: samples(AMOUNTS.get(row, amount)) for row, amount in rows.items()}


@pytest.mark.parametrize("number", range(1, 5), ids=STAGES)
def test_a_mixture_has_every_dataset_of_the_papers_table(number: int) -> None:
    asked = {VARIANT.sub("", MixtureKey.parse(key).dataset or "") for key in load_mixture("vl3", STAGES[number - 1])}
    entries = read_catalogue().datasets.values()
    assert asked == {entry.name for entry in entries if any(row.startswith(f"{number} ") for row in entry.rows)}


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
    assert (config.optimizer.warmup_ratio, config.engine.precision) == (0.03, "bf16")
    assert config.engine.zero_stage == 2  # ours, by `vl3 plan`; the scripts have 1, for the 2B model
    assert config.model.vision_width == 1152


@pytest.mark.parametrize("name", ["tiny", *BIG])
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
