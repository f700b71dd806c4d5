"""An ablation: what its arms share, what each has of its own, and which task belongs to which arm."""

from dataclasses import replace

import pytest

from vl3.config.ablation import AblationConfig
from vl3.config.overrides import apply_overrides
from vl3.errors import ConfigError
from vl3.evaluation.catalogue.entry import groups
from vl3.recipes.catalog import get_recipe


@pytest.fixture
def tiny() -> AblationConfig:
    config = get_recipe("ablation_tiny")
    assert isinstance(config, AblationConfig)
    return config


def test_an_arm_is_the_shared_run_with_its_own_encoder_and_stage_names(tiny: AblationConfig) -> None:
    arm = tiny.arm("dfn")
    assert list(arm.stages) == ["dfn_projector", "dfn_alignment", "dfn_instruction"]
    assert list(arm.stages.values()) == list(tiny.stages.values())
    assert (arm.model.vision_base, arm.model.picture_side_px) == ("package://vl3.recipes/bases/tiny_dfn", 70)
    assert arm.model.language_base == tiny.model.language_base
    assert arm.promotion.registered_model == "vl3-ablation-tiny-dfn"
    assert (arm.data, arm.optimizer, arm.seed, arm.name) == (tiny.data, tiny.optimizer, tiny.seed, tiny.name)
    assert [run.model.picture_side_px for run in tiny.runs()] == [56, 70, 60]
    assert all(run.stages[name].learning_rates.vision is None for run in tiny.runs() for name in run.stages)


def test_a_part_names_an_arm_a_stage_of_it_or_what_is_shared(tiny: AblationConfig) -> None:
    assert tiny.of_part("siglip") == (tiny.arm("siglip"), "")
    assert tiny.of_part("clip_instruction") == (tiny.arm("clip"), "clip_instruction")
    assert tiny.of_part("") == (tiny, "")
    plain = get_recipe("tiny")
    assert plain.of_part("video") == (plain, "video")
    assert plain.runs() == [plain]


def test_overrides_reach_an_arm_and_what_all_share(tiny: AblationConfig) -> None:
    changed = apply_overrides(tiny, ["arms.clip.vision_base=file:///clip", "stages.*.steps=7"])
    assert changed.arm("clip").model.vision_base == "file:///clip"
    assert [row.steps for run in changed.runs() for row in run.stages.values()] == [7] * 9


def test_the_paper_is_followed() -> None:
    """Arms, what is frozen, data and scores of table 9 (arXiv 2501.13106)."""
    config = get_recipe("ablation")
    assert isinstance(config, AblationConfig)
    assert {name: (arm.picture_side_px, list(arm.published.values())) for name, arm in config.arms.items()} == {
        "clip": (336, [61.50, 56.28, 18.32, 24.86, 1668.41]),
        "dfn": (378, [62.70, 56.87, 16.40, 23.09, 1665.35]),
        "siglip": (384, [62.92, 57.12, 22.44, 31.32, 1667.92]),
    }
    rates = [row.learning_rates for row in config.stages.values()]
    assert [(one.vision, one.language is None) for one in rates] == [(None, True), (None, False), (None, False)]
    assert [list(row.mixture) for row in config.stages.values()] == [
        ["llava_pretrain"],
        ["vl3_syn7m-detailed"],
        ["llava_sft_665k"],
    ]
    assert all(set(arm.published) == set(groups()["ablation"]) for arm in config.arms.values())
    assert [run.model.side_patches for run in config.runs()] == [24, 27, 27]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["stages.projector.difffp=true"],
            r"stages\.projector\.difffp=true with model\.picture_side_px=56: an encoder of fixed resolution",
        ),
        (["stages.alignment.image_merge_size=2"], r"arm dfn: .*image_merge_size=2 does not divide the 5 x 5 patches"),
        (["arms.siglip.picture_side_px=13"], r"arms\.picture_side_px=13 must be at least 14"),
    ],
)
def test_what_an_encoder_of_fixed_resolution_cannot_do_is_refused(
    tiny: AblationConfig, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(tiny, overrides)


def test_too_few_arms_clashing_names_and_unknown_arms_are_refused(tiny: AblationConfig) -> None:
    with pytest.raises(ConfigError, match="arms has 1 encoder"):
        replace(tiny, arms={"clip": tiny.arms["clip"]})
    with pytest.raises(ConfigError, match="arms has 'a' and a name that begins with a_"):
        replace(tiny, arms={"a": tiny.arms["clip"], "a_b": tiny.arms["dfn"]})
    with pytest.raises(ConfigError, match=r"recipe ablation_tiny has no arm 'vit'\. Its arms: clip, dfn, siglip"):
        tiny.arm("vit")
