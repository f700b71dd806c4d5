"""Every contradiction that the configuration classes refuse, with the words that explain it."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from vl3.config.data import Category
from vl3.config.run import profiled_steps
from vl3.config.stages import LearningRates, LoraConfig, stage_table
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe

TINY = get_recipe("tiny")
PARTS = {
    "data": TINY.data,
    "stage": TINY.stages["alignment"],
    "optimizer": TINY.optimizer,
    "engine": TINY.engine,
    "launch": TINY.launch,
    "evaluation": TINY.evaluation,
    "promotion": TINY.promotion,
}
POSITIVE = [
    *((f"data.{name}") for name in ("max_length_tokens", "visual_budget_tokens", "min_item_tokens", "video_fps")),
    *((f"data.{name}") for name in ("max_frames", "difffp_min_tokens", "build_workers")),
    *((f"stage.{name}") for name in ("steps", "packs_per_step", "timeout_seconds")),
    *((f"optimizer.{name}") for name in ("epsilon", "max_grad_norm")),
    *((f"engine.{name}") for name in ("checkpoint_every_steps", "keep_checkpoints", "log_every_steps")),
    *((f"launch.{name}") for name in ("processes_per_node", "threads_per_process")),
    *((f"evaluation.{name}") for name in ("samples_per_task", "max_new_tokens", "batch_size", "processes")),
    *((f"evaluation.{name}") for name in ("prepare_threads", "prepare_timeout_seconds")),
]
FRACTIONS = [
    *((f"data.{name}") for name in ("max_bad_fraction", "holdout_fraction")),
    *((f"optimizer.{name}") for name in ("warmup_ratio", "min_lr_ratio")),
]


def change(path: str, value: Any) -> Any:
    part, _, field = path.partition(".")
    return replace(PARTS[part], **{field: value})


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("path", POSITIVE)
def test_number_must_be_positive(path: str, value: int) -> None:
    with pytest.raises(ConfigError) as caught:
        change(path, value)
    assert str(caught.value) == f"{path}={value} must be greater than 0. Set a positive value."


@pytest.mark.parametrize("value", [-0.01, 1.01])
@pytest.mark.parametrize("path", FRACTIONS)
def test_fraction_must_lie_within_its_bounds(path: str, value: float) -> None:
    with pytest.raises(ConfigError) as caught:
        change(path, value)
    assert str(caught.value) == f"{path}={value} is not a fraction. Set a value from 0 to 1."


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("path", FRACTIONS)
def test_fraction_takes_its_bounds(path: str, value: int) -> None:
    change(path, value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.difffp_threshold", -0.1, "data.difffp_threshold=-0.1 is negative. Use 0 or more."),
        (
            "data.visual_budget_tokens",
            640,
            "data.visual_budget_tokens=640 leaves no room for text in data.max_length_tokens=640. "
            "Lower the budget or raise the length.",
        ),
        (
            "data.max_row_visual_tokens",
            255,
            "data.visual_budget_tokens=256 is more than a row may have (data.max_row_visual_tokens=255), so the "
            "largest samples would fit into no row. Lower the budget or raise the row's limit.",
        ),
        (
            "stage.epochs",
            1.0,
            "stage sets both of steps and epochs; one follows from the other. Set one of them, and the other to null.",
        ),
        (
            "stage.packs_per_step",
            None,
            "stage sets neither of packs_per_step and samples_per_step; one follows from the other. Set one of them, "
            "and the other to null.",
        ),
        ("stage.image_merge_size", 3, "stage.image_merge_size=3 is unknown. Choose one of 1, 2."),
        (
            "stage.video_merge_size",
            1,
            "stage.video_merge_size=1 cannot be: the method merges a video's patches 2x2 in every stage "
            "(arXiv 2501.13106), and datasets are counted so. Set 2.",
        ),
        (
            "stage.mixture",
            {},
            "stage.mixture is empty, so no sample could be drawn. Name at least one category or dataset.",
        ),
        ("stage.mixture", {"chart": 0.0}, "stage.mixture.chart=0.0 must be greater than 0. Set a positive value."),
        (
            "stage.mixture",
            {"charts:qa": 1.0},
            "stage.mixture key='charts:qa': charts is no category and so a dataset, of which 'qa' is no "
            f"category either. Choose one of {', '.join(Category)}.",
        ),
        ("engine.zero_stage", 4, "engine.zero_stage=4 is unknown. Choose one of 0, 1, 2, 3."),
        ("engine.precision", "fp8", "engine.precision='fp8' is unknown. Choose one of fp32, bf16."),
        ("launch.backend", "slurm", "launch.backend='slurm' is unknown. Choose one of local, trainjob."),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_contradiction_is_refused_with_its_reason(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        change(path, value)
    assert str(caught.value) == message


def test_stage_that_trains_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"freezes every part, so nothing would train\. Give one part a rate"):
        LearningRates(vision=None, projector=None, language=None)


def test_learning_rate_of_a_trained_part_is_positive() -> None:
    with pytest.raises(ConfigError, match=r"learning_rates\.projector=0 must be greater than 0"):
        LearningRates(vision=None, projector=0, language=None)


def test_global_batch_must_be_dealt_evenly() -> None:
    with pytest.raises(ConfigError) as caught:
        replace(TINY, launch=replace(TINY.launch, processes_per_node=3))
    assert str(caught.value) == (
        "stages.vision_adaptation.packs_per_step=2 is not divisible by the 3 processes of launch.processes_per_node. "
        "Some processes would wait for others in every step. Set packs_per_step to a multiple of 3."
    )


def test_rows_that_a_plan_counts_must_be_dealt_evenly() -> None:
    row = replace(TINY.stages["video"], packs_per_step=None, samples_per_step=20, packs_divisible_by=3)
    with pytest.raises(
        ConfigError, match=r"^stages\.video\.packs_divisible_by=3 is not divisible by the 2 processes of"
    ):
        replace(TINY, stages=TINY.stages | {"video": row})


def test_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        TINY.seed = 1  # type: ignore[misc]


def test_stages_are_numbered_in_the_order_of_the_paper() -> None:
    assert {name: TINY.stage_number(name) for name in TINY.stages} == {
        "vision_adaptation": 1,
        "alignment": 2,
        "multitask": 3,
        "video": 4,
    }
    assert [replace(TINY, seed=10).stage_seed(name) for name in TINY.stages] == [41, 42, 43, 44]


def test_a_stage_added_at_the_end_leaves_the_seeds_of_the_others() -> None:
    ten = replace(TINY, seed=10)
    more = replace(
        ten,
        stages={**TINY.stages, "fifth": TINY.stages["video"]},
        placements={**TINY.placements, "fifth": TINY.placements["video"]},
    )
    assert [more.stage_seed(name) for name in TINY.stages] == [ten.stage_seed(name) for name in TINY.stages]
    assert more.stage_seed("fifth") == 45


def test_a_stage_that_comes_twice_is_refused() -> None:
    row = TINY.stages["video"]
    with pytest.raises(ConfigError, match=r"stages has 'video' twice, so one row would .* its own name"):
        stage_table(("alignment", row), ("video", row), ("video", row))


@pytest.mark.parametrize("name", ["", "Video", "1st", "_a", "a_", "a-b", "a b", "a/b", "..", "x" * 33, "vidéo", "a\n"])
def test_a_stage_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    stages, placements = {name: TINY.stages["video"]}, {name: TINY.placements["video"]}
    with pytest.raises(ConfigError, match=r"stages has a stage named .*cannot name a task.* up to 32 characters"):
        replace(TINY, stages=stages, placements=placements)


def test_a_table_without_stages_is_refused() -> None:
    with pytest.raises(ConfigError, match="stages is empty, so nothing would be trained"):
        replace(TINY, stages={}, placements={})


def test_every_stage_has_one_placement() -> None:
    fewer = {name: placed for name, placed in TINY.placements.items() if name != "video"}
    with pytest.raises(ConfigError, match=r"placements lacks video; the stages are vision_adaptation, alignment"):
        replace(TINY, placements=fewer)
    with pytest.raises(ConfigError, match=r"placements places other, which is no stage"):
        replace(TINY, placements={**TINY.placements, "other": TINY.placements["video"]})


def test_world_size_is_that_of_the_backend() -> None:
    placed = replace(TINY.placements["video"], nodes=3, processes_per_node=4)
    stages = TINY.stages | {"video": replace(TINY.stages["video"], packs_per_step=12)}
    run = replace(TINY, stages=stages, placements=TINY.placements | {"video": placed})
    assert run.num_processes("video") == 2
    assert replace(run, launch=replace(run.launch, backend="trainjob")).num_processes("video") == 12


def test_global_batch_must_be_dealt_evenly_on_the_cluster_too() -> None:
    placements = {**TINY.placements, "video": replace(TINY.placements["video"], nodes=3)}
    with pytest.raises(ConfigError, match=r"packs_per_step=2 is not divisible by the 6 processes of placements\.video"):
        replace(TINY, placements=placements, launch=replace(TINY.launch, backend="trainjob"))


def test_adapters_of_a_frozen_language_model_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"stage.lora adapts the language model, but .*language=null freezes it"):
        replace(TINY.stages["vision_adaptation"], lora=LoraConfig())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "stage.lora.rank=0 must be greater than 0"),
        ({"alpha": -1.0}, "stage.lora.alpha=-1.0 must be greater than 0"),
        ({"dropout": 1.0}, "stage.lora.dropout=1.0 must be at least 0 and below 1"),
    ],
)
def test_adapters_that_could_not_learn_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(LoraConfig(), **changes)


def test_a_build_asks_for_no_gpus() -> None:
    config = get_recipe("vl3_2b")
    placements = {**config.placements, "build": config.placements["video"]}
    with pytest.raises(ConfigError, match=r"placements\.build\.gpus_per_node=8: the build decodes on CPUs, so GPUs"):
        replace(config, placements=placements)


@pytest.mark.parametrize("text", ["10", "0:3", "5:4", "1:21", "a:b", "1:2:3"])
def test_steps_to_profile_are_few_and_in_order(text: str) -> None:
    with pytest.raises(ConfigError, match=r"engine\.profile_steps='.*' must be FIRST:LAST, .* at most 20 of them"):
        change("engine.profile_steps", text)


def test_steps_to_profile_count_from_one() -> None:
    assert profiled_steps(change("engine.profile_steps", "10:13").profile_steps) == (10, 13)
    assert profiled_steps("1:20") == (1, 20)
