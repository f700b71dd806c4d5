"""How a model's samples are prepared: as the stage that made it did."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vl3.config.codec import to_dict
from vl3.config.overrides import apply_overrides
from vl3.errors import ConfigError
from vl3.evaluation.candidates import EvaluatedModel, open_candidate
from vl3.recipes.catalog import get_recipe


def test_before_is_assembled_from_the_bases_with_the_settings_of_stage_1() -> None:
    config = replace(get_recipe("tiny"), seed=11)
    candidate = open_candidate(EvaluatedModel(name="before", folder=None), config)
    stage = config.stages["vision_adaptation"]
    assert candidate.settings.image_merge_size == stage.image_merge_size
    assert candidate.settings.difffp is False
    first, again = candidate.load(), candidate.load()
    other = open_candidate(EvaluatedModel(name="before", folder=None), replace(config, seed=12)).load()
    weights = [dict(model.named_parameters()) for model in (first, again, other)]
    name = next(name for name in weights[0] if name.startswith("mm_projector") and name.endswith("weight"))
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])
    assert not first.training


def test_a_checkpoint_is_prepared_as_its_own_run_says(checkpoint: Path) -> None:
    config = apply_overrides(get_recipe("tiny"), ["data.max_frames=3", "stages.video.difffp=false"])
    candidate = open_candidate(EvaluatedModel(name="video", folder=checkpoint), config)
    assert candidate.settings.difffp is True
    assert candidate.settings.image_merge_size == get_recipe("tiny").stages["video"].image_merge_size
    assert candidate.settings.data.max_frames == 16


def test_models_share_samples_only_with_equal_settings_and_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    config = get_recipe("tiny")
    before = open_candidate(EvaluatedModel(name="before", folder=None), config).preparation
    video = open_candidate(EvaluatedModel(name="video", folder=checkpoint), config).preparation
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    assert before != video
    assert open_candidate(EvaluatedModel(name="again", folder=copy), config).preparation == video
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + " ")
    assert open_candidate(EvaluatedModel(name="again", folder=copy), config).preparation != video


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"run\.json cannot be read.*Evaluate a checkpoint that a training stage wrote"),
        ("{", r"run\.json cannot be read"),
        (json.dumps({"stage": "video"}), r'needs "stage" and "config"'),
        (
            json.dumps({"stage": "stage5", "config": to_dict(get_recipe("tiny"))}),
            "names stage 'stage5', but its configuration has only vision_adaptation",
        ),
        (json.dumps({"stage": "video", "config": {"seed": 0}}), r"RunConfig cannot be built"),
    ],
    ids=["missing", "not json", "no configuration", "unknown stage", "incomplete"],
)
def test_a_checkpoint_that_does_not_say_how_it_was_made_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        open_candidate(EvaluatedModel(name="video", folder=tmp_path), get_recipe("tiny"))


def test_a_model_that_no_stage_of_ours_made_is_prepared_as_its_own_files_say(checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "given"))
    (folder / "run.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps({"patch_size": 14}))
    (folder / "processor_config.json").write_text(json.dumps({"image_merge_size": 2, "video_merge_size": 1}))
    config = apply_overrides(get_recipe("tiny"), ["data.max_frames=3"])
    settings = open_candidate(EvaluatedModel(name="model", folder=folder), config).settings
    assert (settings.image_merge_size, settings.video_merge_size, settings.difffp) == (2, 1, True)
    assert settings.data == config.data, "the limits are this run's"
