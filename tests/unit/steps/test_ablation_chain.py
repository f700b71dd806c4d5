"""The steps of an ablation one after the other, for two arms of random weights: what each hands to the next."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixed_bases import write_clip, write_fixed_siglip
from vl3.config.ablation import AblationConfig
from vl3.config.overrides import apply_overrides
from vl3.config.parameters import WorkflowParameters
from vl3.models.fixed_config import CLIP_TYPE, SIGLIP_TYPE
from vl3.models.stored import CONFIG_FILE
from vl3.recipes import catalog
from vl3.recipes.ablation import ablation_tiny
from vl3.steps import build_data, compare_arms, evaluate_arm, import_arm, plan_data, train_stage
from vl3.store.artifacts import fetch
from vl3.store.reference import Reference
from vl3.workflow.entry import task_name
from vl3.workflow.step import execute, make_request

SHORT = (
    "launch.processes_per_node=1",
    "evaluation.processes=1",
    "evaluation.samples_per_task=2",
    "evaluation.max_new_tokens=2",
    "data.build_workers=1",
    "engine.log_every_steps=1",
    "stages.instruction.steps=2",
    "stages.instruction.packs_per_step=1",
)


def short_ablation(folder: Path) -> AblationConfig:
    """Two arms with one stage of two steps."""
    whole = ablation_tiny()
    bases = {"clip": write_clip(folder / "clip"), "siglip": write_fixed_siglip(folder / "siglip")}
    return apply_overrides(
        replace(
            whole,
            arms={name: replace(whole.arms[name], vision_base=base.as_uri()) for name, base in bases.items()},
            stages={"instruction": whole.stages["instruction"]},
            placements={"instruction": whole.placements["instruction"]},
        ),
        SHORT,
    )


@pytest.mark.full
def test_two_arms_are_trained_scored_and_compared_on_one_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vl3.toy.corpus import write_corpus

    config = short_ablation(tmp_path)
    monkeypatch.setitem(catalog._RECIPES, "ablation_tiny", lambda: config)
    write_corpus(tmp_path / "data", seed=0, heldout_scenes=2, scale=0.01, workers=1)
    parameters = WorkflowParameters(
        recipe="ablation_tiny",
        data_uri=(tmp_path / "data").as_uri(),
        artifacts_uri=(tmp_path / "artifacts").as_uri(),
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        run_id="a-run",
    )
    run_folder = tmp_path / "run"
    run_folder.mkdir()

    def run(module: Any, part: str = "", **inputs: Reference) -> dict[str, Reference]:
        name = module.__name__.rpartition(".")[2]
        given = {"task": task_name(name, part), "part": part, "inputs": inputs, "run_folder": run_folder}
        record, is_reused = execute(module.STEP, make_request(parameters, **given), lambda *_: None)
        assert not is_reused
        return record.outputs

    starts = {arm: run(import_arm, arm)["start"] for arm in config.arms}
    dataset = run(build_data, start=starts["clip"])["dataset"]
    scores, kinds = {}, {}
    for arm, start in starts.items():
        stage = f"{arm}_instruction"
        plan = run(plan_data, stage, dataset=dataset)["plan"]
        checkpoint = run(train_stage, stage, initial=start, dataset=dataset, plan=plan)["checkpoint"]
        kinds[arm] = json.loads((fetch(checkpoint) / CONFIG_FILE).read_text())["vision_encoder_config"]
        scores[arm] = run(evaluate_arm, arm, start=start, dataset=dataset, checkpoint=checkpoint)["evaluation"]
    run(compare_arms, dataset=dataset, arm_1=scores["clip"], arm_2=scores["siglip"])

    assert [(one["model_type"], one["num_hidden_layers"], one["image_size"]) for one in kinds.values()] == [
        (CLIP_TYPE, 2, 56),
        (SIGLIP_TYPE, 2, 60),
    ]
    found = json.loads((run_folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert [list(arm["stages"]) for arm in found["arms"]] == [
        ["before", "clip_instruction"],
        ["before", "siglip_instruction"],
    ]
    asked = {row["category"]: row["scores"]["clip"]["total"] for row in found["categories"]}
    assert asked == dict.fromkeys(("scene_image", "scene_text", "document", "chart", "fine_grained", "text_only"), 2)
    assert "61.5" in (run_folder / "report" / "report.html").read_text(encoding="utf-8")
