"""Typed overrides of a recipe."""

import json

import pytest

from vl3.config.codec import from_dict, to_dict
from vl3.config.mixture import Draw
from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.config.stages import LoraConfig
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe

TINY = get_recipe("tiny")


def test_values_get_their_types() -> None:
    config = apply_overrides(
        TINY,
        [
            "data.max_frames=8",
            "optimizer.epsilon=1e-6",
            "stages.multitask.difffp=false",
            "stages.video.learning_rates.vision=null",
            "model.vision_base=file:///bases/vision",
            " seed = 7 ",
        ],
    )
    assert config.data.max_frames == 8
    assert config.optimizer.epsilon == 1e-6
    assert config.stages["multitask"].difffp is False
    assert config.stages["video"].learning_rates.vision is None
    assert config.model.vision_base == "file:///bases/vision"
    assert config.seed == 7
    assert TINY.data.max_frames == 16, "the recipe itself stays as it was"


def test_later_override_wins() -> None:
    assert apply_overrides(TINY, ["seed=1", "seed=2"]).seed == 2


def test_no_override_changes_nothing() -> None:
    assert apply_overrides(TINY, []) == TINY


def test_mixture_takes_a_new_kind_with_a_source() -> None:
    config = apply_overrides(TINY, ["stages.alignment.mixture.chart:caption=0.25"])
    assert config.stages["alignment"].mixture["chart:caption"] == 0.25


def test_mixture_takes_limits() -> None:
    config = apply_overrides(TINY, ['stages.alignment.mixture.mine={"amount": 5, "max_epochs": 2, "cap": 9}'])
    assert config.stages["alignment"].mixture["mine"] == Draw(amount=5.0, max_epochs=2.0, cap=9)
    assert from_dict(RunConfig, to_dict(config)) == config


def test_a_star_sets_a_field_of_every_stage() -> None:
    config = apply_overrides(TINY, ["stages.*.missing=drop", 'stages.*.mixture={"data": 1}'])
    assert {row.missing for row in config.stages.values()} == {"drop"}
    assert all(row.mixture == {"data": 1.0} for row in config.stages.values())


def test_whole_mixture_can_be_replaced() -> None:
    config = apply_overrides(TINY, ['stages.alignment.mixture={"chart": 1}'])
    assert config.stages["alignment"].mixture == {"chart": 1.0}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.max_frame=8", "unknown field 'data.max_frame'. The nearest is 'data.max_frames'."),
        ("max_frames=8", "unknown field 'max_frames'. The nearest is 'data.max_frames'."),
        ("dta.max_frames=8", "unknown field 'dta.max_frames'. The nearest is 'data.max_frames'."),
        ("stages.vidoe.steps=8", "unknown field 'stages.vidoe.steps'. The nearest is 'stages.video.steps'."),
        ("seed.deeper=8", "unknown field 'seed.deeper'."),
        ("data=8", "data is a group of fields, not a value. Name one of max_length_tokens,"),
        ("seed", "override 'seed' has no '='. Write it as path.to.field=value."),
        ("seed=one", "'one' is not an int"),
        ("data.max_frames=1.5", "1.5 is not an int"),
        ("data.max_frames=true", "True is not an int"),
        ("data.max_frames=0", "data.max_frames=0 must be greater than 0."),
        ("stages.alignment.mixture.a photo=1", "stage.mixture key='a photo' is neither a category (scene_image,"),
        ("stages.*.step=8", "unknown field 'stages.vision_adaptation.step'."),
    ],
)
def test_wrong_override_says_what_would_be_right(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(TINY, [override])
    assert message in str(caught.value)


def test_adapters_are_switched_on_with_the_originals_values_and_off() -> None:
    lora = apply_overrides(TINY, ["stages.video.lora={}"])
    assert lora.stages["video"].lora == LoraConfig(rank=64, alpha=16.0, dropout=0.05)
    assert apply_overrides(lora, ["stages.video.lora.rank=8"]).stages["video"].lora == LoraConfig(rank=8)
    assert apply_overrides(lora, ["stages.video.lora=null"]) == TINY
    with pytest.raises(ConfigError, match=r"expected StageConfig @ RunConfig\.stages\['video'\]"):
        apply_overrides(lora, ["stages.video=null"])


def test_a_placement_that_a_recipe_lacks_can_be_set() -> None:
    tiny = get_recipe("tiny")
    size = {**to_dict(tiny.placements["video"]), "nodes": 2}
    changed = apply_overrides(tiny, [f"placements.evaluation={json.dumps(size)}", "placements.evaluation.nodes=3"])
    assert changed.placements["evaluation"].nodes == 3
    with pytest.raises(ConfigError, match=r"unknown field 'placements\.evaluate'"):
        apply_overrides(tiny, [f"placements.evaluate={json.dumps(size)}"])
