"""A stage that trains adapters: what changes, what is kept to go on, and what is handed on."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from vl3.store.artifacts import fetch, find
from vl3.training.job import StageJob

pytestmark = pytest.mark.usefixtures("process_group")
LORA = {
    "stages.vision_adaptation.lora": {"rank": 4, "dropout": 0.3},
    "stages.vision_adaptation.learning_rates.language": 0.01,
    "stages.vision_adaptation.learning_rates.vision": None,
    "stages.vision_adaptation.steps": 5,
}


def run(job: StageJob, *, stop_after: int | None = None) -> bool:
    from vl3.training.stage import Rank, run_stage

    asked = -1  # it is asked once before the first step, too

    def stop_requested() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_after

    return run_stage(job, Rank(rank=0, world_size=1, launched_at=time.time()), stop_requested=stop_requested)


@pytest.fixture(scope="module")
def unbroken(stage_inputs: Any, process_group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    assert run(stage_inputs.job(folder, **LORA))
    return folder


def test_what_is_handed_on_is_plain_weights(unbroken: Path, stage_inputs: Any) -> None:
    import torch

    from vl3.models.start import assemble
    from vl3.models.weights import load_model

    reference = find((unbroken / "model").as_uri())
    assert reference is not None
    folder = fetch(reference)
    made = json.loads((folder / "run.json").read_text())
    assert made["config"]["stages"]["vision_adaptation"]["lora"] == {"rank": 4, "alpha": 16.0, "dropout": 0.3}
    trained = dict(load_model(folder).named_parameters())
    first = assemble(stage_inputs.vision, stage_inputs.language, seed=0).named_parameters()
    changed = {name for name, parameter in first if not torch.equal(parameter, trained[name])}
    language = {name for name in changed if name.startswith("language_model.")}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in language} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert not any(name.endswith(".bias") for name in language)
    assert {name.split(".")[0] for name in changed - language} == {"mm_projector"}


def test_a_resumable_checkpoint_holds_the_adapters_and_what_else_trains(unbroken: Path) -> None:
    (path,) = (unbroken / "work" / "step-000003").glob("*/r00000-weights-0000.safetensors")
    held = {name.removeprefix("weights/").partition("[")[0] for name in load_file(path)}
    adapters = {name for name in held if ".lora_" in name}
    assert adapters
    assert {name.split(".")[0] for name in held - adapters} == {"mm_projector"}


@pytest.mark.parametrize(
    "changes", [{}, {"engine.zero_stage": 3, "engine.precision": "bf16"}], ids=["ZeRO 1", "ZeRO 3 bf16"]
)
def test_a_stopped_stage_goes_on_to_the_same_weights_with_the_same_dropout(
    stage_inputs: Any, unbroken: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    import torch

    whole = unbroken
    if changes:
        whole = tmp_path / "whole"
        assert run(stage_inputs.job(whole, **LORA, **changes))
    job = stage_inputs.job(tmp_path / "broken", **LORA, **changes)
    assert not run(job, stop_after=2)
    torch.manual_seed(1234)  # another process has drawn other numbers
    assert run(job)
    names = ("model", "model.safetensors")
    assert tmp_path.joinpath("broken", *names).read_bytes() == whole.joinpath(*names).read_bytes()
