"""What is in a step's key: neither too little (stale results) nor too much (training again for nothing)."""

import dataclasses
import os
from pathlib import Path

import pytest

from vl3.config.overrides import apply_overrides
from vl3.data.build.source import folder_fingerprint
from vl3.errors import DataError
from vl3.steps import evaluate, plan_data, promote, train_stage, validate_data
from vl3.workflow.step import StepRequest


@pytest.fixture
def training(request_of_tiny: StepRequest) -> StepRequest:
    return dataclasses.replace(request_of_tiny, task="train-alignment", part="alignment")


def _override(request: StepRequest, text: str) -> StepRequest:
    return dataclasses.replace(request, config=apply_overrides(request.config, [text]))


@pytest.mark.parametrize(
    "override",
    [
        "seed=5",
        "stages.alignment.steps=3",
        "stages.alignment.learning_rates.vision=1e-5",
        "stages.alignment.mixture.chart=9",
        "data.difffp_threshold=0.2",
        "optimizer.beta1=0.8",
        "engine.precision=bf16",
    ],
)
def test_training_follows(override: str, training: StepRequest) -> None:
    assert train_stage.key_parts(_override(training, override)) != train_stage.key_parts(training)


def test_how_an_encoder_of_fixed_resolution_is_used_is_followed(training: StepRequest) -> None:
    """The bases' files are the same, so nothing else tells."""
    plain = dataclasses.replace(training, config=apply_overrides(training.config, ["stages.*.difffp=false"]))
    plain = _override(plain, "stages.*.image_merge_size=1")
    fixed = _override(plain, "model.picture_side_px=336")
    for step in (train_stage, evaluate, plan_data):
        assert step.key_parts(fixed) != step.key_parts(plain)
    deeper = _override(fixed, "model.skipped_blocks=0")
    assert train_stage.key_parts(deeper) != train_stage.key_parts(fixed)
    assert evaluate.key_parts(deeper) != evaluate.key_parts(fixed)
    assert train_stage.key_parts(_override(plain, "model.skipped_blocks=0")) == train_stage.key_parts(plain)


@pytest.mark.parametrize(
    "override",
    [
        "stages.video.steps=3",
        "engine.log_every_steps=1",
        "engine.checkpoint_every_steps=7",
        "stages.alignment.timeout_seconds=10",
        "stages.alignment.stall_seconds=10",
        "stages.alignment.startup_seconds=10",
        "engine.max_skipped_fraction=0.5",
        "evaluation.samples_per_task=3",
        "promotion.gates.mean_accuracy.threshold=0.1",
        "data.build_workers=1",
        "placements.alignment.queue=other",
        "step_pods.launcher.memory_gib=3",
        "launch.backend=trainjob",
        "launch.processes_per_node=1",
        "launch.threads_per_process=2",
        "engine.zero_stage=2",
        "engine.recompute=full",
        "engine.keep_checkpoints=3",
        "engine.keep_every_steps=100",
        "engine.published_weights=release",
        "engine.on_code_change=restart",
    ],
)
def test_training_ignores(override: str, training: StepRequest) -> None:
    assert train_stage.key_parts(_override(training, override)) == train_stage.key_parts(training)


def test_training_follows_the_type_of_the_weights_that_the_stage_publishes(training: StepRequest) -> None:
    """`release` is bf16 for the last stage alone, and this is the second."""
    rounded = _override(training, "engine.published_weights=bf16")
    assert train_stage.key_parts(rounded) != train_stage.key_parts(training)
    config = _override(training, "engine.published_weights=release").config
    assert [config.published_type(stage) for stage in config.stages] == ["fp32", "fp32", "fp32", "bf16"]


@pytest.mark.parametrize(
    "override",
    [
        "seed=5",
        "stages.alignment.steps=3",
        "stages.alignment.packs_per_step=4",
        "stages.alignment.mixture.chart=9",
        "stages.alignment.difffp=true",
        "stages.alignment.image_merge_size=2",
        "data.max_length_tokens=700",
        "data.max_row_visual_tokens=300",
        "data.prune_before_encoder=true",
    ],
)
def test_a_plan_follows(override: str, training: StepRequest) -> None:
    assert plan_data.key_parts(_override(training, override)) != plan_data.key_parts(training)


@pytest.mark.parametrize(
    "override",
    [
        "stages.video.steps=3",
        "stages.alignment.learning_rates.vision=1e-5",
        "data.max_frames=3",  # in the dataset's digest
        "launch.processes_per_node=1",
        "launch.backend=trainjob",
        "engine.precision=bf16",
    ],
)
def test_a_plan_ignores(override: str, training: StepRequest) -> None:
    assert plan_data.key_parts(_override(training, override)) == plan_data.key_parts(training)


def test_the_plan_of_a_stage_alone_is_that_of_the_whole_run(training: StepRequest) -> None:
    alone = dataclasses.replace(training, stages="alignment")
    assert plan_data.key_parts(alone) == plan_data.key_parts(training)


def test_evaluation_and_promotion_follow_their_own_groups(request_of_tiny: StepRequest) -> None:
    thresholds = _override(request_of_tiny, "promotion.gates.mean_accuracy.threshold=0.1")
    assert promote.key_parts(thresholds) != promote.key_parts(request_of_tiny)
    assert evaluate.key_parts(thresholds) == evaluate.key_parts(request_of_tiny)
    assert evaluate.key_parts(_override(request_of_tiny, "evaluation.max_new_tokens=3")) != evaluate.key_parts(
        request_of_tiny
    )


def test_all_ten_categories_need_a_score(request_of_tiny: StepRequest) -> None:
    assert len(promote.expected_categories(request_of_tiny.config, request_of_tiny.config.stages)) == 10


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "train.jsonl").write_text("{}\n")
    (folder / "image.png").write_bytes(b"png")
    return folder


def test_validation_follows_mixtures_and_merges_but_not_rates(request_of_tiny: StepRequest, data_folder: Path) -> None:
    before = validate_data.key_parts(request_of_tiny)
    for same in ("stages.video.steps=3", "stages.video.learning_rates.vision=1e-5", "data.build_workers=1", "seed=4"):
        assert validate_data.key_parts(_override(request_of_tiny, same)) == before
    for other in (
        "stages.video.mixture.chart=3",
        "stages.video.missing=drop",
        "stages.video.image_merge_size=1",
        "data.max_frames=3",
    ):
        assert validate_data.key_parts(_override(request_of_tiny, other)) != before


def test_fingerprint_follows_annotations_and_media(data_folder: Path) -> None:
    first = folder_fingerprint(data_folder)
    os.utime(data_folder / "annotations" / "train.jsonl", (1, 1))
    assert folder_fingerprint(data_folder) == first
    (data_folder / "annotations" / "train.jsonl").write_text("{ }\n")
    second = folder_fingerprint(data_folder)
    (data_folder / "image.png").write_bytes(b"png2")
    assert len({first, second, folder_fingerprint(data_folder)}) == 3


def test_fingerprint_of_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the data folder does not exist"):
        folder_fingerprint(tmp_path / "gone")


def test_fingerprint_takes_any_name_of_a_file(data_folder: Path) -> None:
    first = folder_fingerprint(data_folder)
    Path(os.fsdecode(os.fsencode(data_folder) + b"/\xff.png")).write_bytes(b"x")
    assert folder_fingerprint(data_folder) != first


def test_only_the_stages_that_a_run_trains_judge_its_data(request_of_tiny: StepRequest, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    part = dataclasses.replace(request_of_tiny, stages="video")
    assert list(validate_data.key_parts(part)["stages"]) == ["video"]
    assert validate_data.key_parts(dataclasses.replace(request_of_tiny, stages="none"))["stages"] == {}
    assert len(validate_data.key_parts(request_of_tiny)["stages"]) == 4
    narrow = _override(part, 'stages.video.mixture={"general_video": 1}')
    assert list(promote.key_parts(narrow)["expected"]["heldout"]) == ["general_video"]


def test_a_stage_that_is_trained_alone_keeps_its_number_and_key(training: StepRequest) -> None:
    alone = dataclasses.replace(training, stages="alignment", model_uri="file:///model")
    assert train_stage.key_parts(alone) == train_stage.key_parts(training)
    assert train_stage.key_parts(alone)["stage_number"] == 2
