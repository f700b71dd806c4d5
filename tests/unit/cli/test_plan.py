"""`vl3 plan`."""

import json
from pathlib import Path

import pytest

from tests.support.plans import make_rows, write_dataset
from vl3.cli.main import run


def test_plan_prints_parameters_memory_time_and_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "vl3_2b", "--stage", "video", "--gpus", "8", "--gpu", "a100", "--price", "2"]) == 0
    out = capsys.readouterr().out
    assert "412,147,440  4,131,840  1,543,714,304   1,959,993,584" in out
    assert "8 a100  ZeRO 2, none" in out
    assert out.count("ZeRO 2 + offload, full") == 1
    assert "too large" in out
    assert "TFLOP of a row" in out
    assert "USD" in out
    assert "- without a plan: an image has 1,600 patches" in out
    assert "NVIDIA A100 datasheet" in out


def test_plan_as_json_has_every_stage_and_sharding(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "vl3_7b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["stage"] for one in found["stages"]] == ["vision_adaptation", "alignment", "multitask", "video"]
    assert all(one["fits"] for one in found["stages"])
    assert len(found["shardings"]["video"]) == 21
    assert found["parameters"]["head"] == 544_997_376


def test_plan_on_a_dataset_takes_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = str(write_dataset(tmp_path, make_rows()))
    changes = ('stages.video.mixture={"data": {"epochs": 1}}', "stages.video.steps=3")
    overrides = [part for one in changes for part in ("--set", one)]
    options = ["--stage", "video", "--gpus", "1", "--gpu", "a10g", "--dataset", dataset, "--json"]
    assert run(["plan", "tiny", *options, *overrides]) == 0
    (stage,) = json.loads(capsys.readouterr().out)["stages"]
    assert (stage["steps"], stage["rows_per_step"]) == (3, 2)
    assert stage["assumptions"][0].startswith("all tokens of text are supervised")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny"], "placements.vision_adaptation has no GPUs, so there is nothing to plan. Name some with --gpus"),
        (["vl3_2b", "--gpus", "8", "--gpu", "h20"], "GPU 'h20' is unknown"),
        (["vl3_2b", "--stage", "last"], "recipe vl3_2b has no stage 'last'"),
        (["vl3_2b", "--plan", "here"], "--plan is the plan of one stage. Name the stage with --stage."),
    ],
)
def test_what_cannot_be_planned_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", *arguments]) == 2
    assert message in capsys.readouterr().err
