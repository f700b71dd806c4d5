"""A whole stage in one process: metrics, checkpoints, going on after a stop, and the published weights."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vl3.errors import ConfigError, StorageError
from vl3.store.artifacts import fetch, find
from vl3.store.manifest import write_manifest
from vl3.training.job import StageJob

pytestmark = pytest.mark.usefixtures("process_group")


def run(job: StageJob, *, stop_after: int | None = None) -> bool:
    """Run a stage of one rank; `stop_after` asks it to stop while it works on that step."""
    from vl3.training.stage import Rank, run_stage

    asked = -1  # it is asked once before the first step, too

    def stop_requested() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_after

    rank = Rank(rank=0, world_size=1, launched_at=time.time())
    return run_stage(job, rank, stop_requested=stop_requested)


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["type"] == kind]


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(event["step"], event["values"]["loss"]) for event in events(folder, "metrics")]


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def files_of(folder: Path, step: int) -> dict[str, Path]:
    """The files of a checkpoint by their names; its attempt's folder is the only one."""
    (attempt,) = (path for path in (folder / "work" / f"step-{step:06d}").iterdir() if path.is_dir())
    return {path.name: path for path in attempt.iterdir()}


@pytest.fixture(scope="module")
def unbroken(stage_inputs: Any, process_group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    assert run(stage_inputs.job(folder))
    return folder


def test_stage_writes_events(unbroken: Path) -> None:
    assert [event["resumed_from_step"] for event in events(unbroken, "start")] == [0]
    metrics = events(unbroken, "metrics")
    assert [event["step"] for event in metrics] == [4, 8]
    values = metrics[1]["values"]
    assert set(values) == {
        "loss", "supervised_tokens", "tokens_per_second", "visual_tokens", "visual_tokens_kept", "kept_share",
        "seconds/step", "seconds/data", "seconds/forward", "seconds/backward", "seconds/optimizer", "grad_norm",
        "seconds/save", "save_stall_share", "tflops_per_second",
        "skipped_updates", "rows_per_second", "read_bytes_per_second", "read_retries", "data_wait_share",
        "lr/vision", "lr/projector", "lr/language", "mix/scene_image", "mix/text_only",
    }  # fmt: skip
    assert values["lr/language"] == 0.0
    assert values["lr/projector"] == pytest.approx(2 * values["lr/vision"])
    assert values["kept_share"] == 1.0
    assert values["visual_tokens"] > 0
    assert 0 < values["loss"] < metrics[0]["values"]["loss"]
    drawn = {name: values[f"mix/{name}"] for name in ("scene_image", "text_only")}
    assert drawn["scene_image"] / sum(drawn.values()) == pytest.approx(2 / 3, abs=0.1)
    assert {(4, 8), (8, 8)} <= {(e["done"], e["total"]) for e in events(unbroken, "progress")}
    assert events(unbroken, "end")[0]["steps"] == 8
    assert events(unbroken, "end")[0]["bad_samples"] == []


def test_stage_publishes_a_model_that_says_how_it_was_made(unbroken: Path, stage_inputs: Any) -> None:
    import torch

    from vl3.models.start import assemble
    from vl3.models.weights import load_model

    reference = find((unbroken / "model").as_uri())
    assert reference is not None
    assert reference.kind == "checkpoint"
    folder = fetch(reference)
    made = json.loads((folder / "run.json").read_text())
    assert made["stage"] == "vision_adaptation"
    assert made["config"]["stages"]["vision_adaptation"]["steps"] == 8
    assert (folder / "tokenizer.json").is_file()
    trained = dict(load_model(folder).named_parameters())
    first = assemble(stage_inputs.vision, stage_inputs.language, seed=0).named_parameters()
    changed = {name for name, parameter in first if not torch.equal(parameter, trained[name])}
    assert {name.split(".")[0] for name in changed} == {"vision_encoder", "mm_projector"}


def test_the_last_checkpoints_are_kept_and_nothing_else(unbroken: Path) -> None:
    names = [path.name for path in sorted((unbroken / "work").iterdir())]
    assert names == ["step-000003", "step-000006", "step-000008"]
    assert set(files_of(unbroken, 6)) == {
        "r00000-weights-0000.safetensors", "r00000-exp_avg-0000.safetensors", "r00000-exp_avg_sq-0000.safetensors",
        "trainer.json", "index.json",
    }  # fmt: skip
    assert set(files_of(unbroken, 8)) == {"r00000-weights-0000.safetensors", "trainer.json", "index.json"}


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_a_stopped_stage_goes_on_to_the_same_weights_and_losses(
    zero_stage: int, stage_inputs: Any, unbroken: Path, tmp_path: Path
) -> None:
    changes = {"engine.zero_stage": zero_stage}
    whole = unbroken
    if zero_stage != 1:  # the fixture's stage
        whole = tmp_path / "whole"
        assert run(stage_inputs.job(whole, **changes))
    job = stage_inputs.job(tmp_path, **changes)
    assert not run(job, stop_after=5)  # in the middle of a window of metrics
    assert not (tmp_path / "model").exists()
    assert "stopped on request after step 5 of 8" in events(tmp_path, "note")[-1]["text"]
    assert run(job)
    assert [event["resumed_from_step"] for event in events(tmp_path, "start")] == [0, 5]
    assert losses(tmp_path) == losses(whole)
    assert weights(tmp_path) == weights(whole)


def test_a_stage_that_is_asked_to_stop_during_start_up_does_no_step(stage_inputs: Any, tmp_path: Path) -> None:
    assert not run(stage_inputs.job(tmp_path), stop_after=0)
    assert events(tmp_path, "start") == []
    assert "stopped on request after step 0 of 8; it had not begun" in events(tmp_path, "note")[-1]["text"]
    assert not (tmp_path / "work").exists()


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    stage_inputs: Any, unbroken: Path, tmp_path: Path
) -> None:
    job = stage_inputs.job(tmp_path)
    assert not run(job, stop_after=7)
    damaged = files_of(tmp_path, 7)["r00000-exp_avg-0000.safetensors"]
    damaged.write_bytes(damaged.read_bytes()[:-10])
    assert run(job)
    note = events(tmp_path, "note")[-1]["text"]
    assert note.startswith("checkpoint of step 7 is not used: ")
    assert str(damaged) in note
    assert [event["resumed_from_step"] for event in events(tmp_path, "start")] == [0, 6]
    assert weights(tmp_path) == weights(unbroken)


def test_a_checkpoint_of_another_configuration_is_not_used(stage_inputs: Any, tmp_path: Path) -> None:
    assert not run(stage_inputs.job(tmp_path), stop_after=3)
    assert run(stage_inputs.job(tmp_path, seed=1, **{"stages.vision_adaptation.steps": 4}))
    assert "belongs to another configuration, dataset or initial model" in events(tmp_path, "note")[-1]["text"]
    assert [event["resumed_from_step"] for event in events(tmp_path, "start")] == [0, 0]


def test_the_next_stage_starts_from_the_weights_alone(stage_inputs: Any, unbroken: Path, tmp_path: Path) -> None:
    job = stage_inputs.job(
        tmp_path, initial_model=find((unbroken / "model").as_uri()), **{"stages.vision_adaptation.steps": 4}
    )
    assert run(job)
    assert losses(tmp_path)[0][1] < losses(unbroken)[0][1]


def test_a_stage_that_diverges_says_so(stage_inputs: Any, tmp_path: Path) -> None:
    rates = {"vision": 1e30, "projector": 1e30, "language": 1e30}
    with pytest.raises(ConfigError, match=r"the loss is nan .* training has diverged"):
        run(stage_inputs.job(tmp_path, **{"stages.vision_adaptation.learning_rates": rates}))
    assert not (tmp_path / "model").exists()


def test_a_missing_dataset_is_named(stage_inputs: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    job = stage_inputs.job(tmp_path)
    missing = replace(job, dataset=job.dataset | {"uri": (tmp_path / "gone").as_uri()})
    with pytest.raises(StorageError, match=r"gone: the dataset is missing"):
        run(missing)


def created_by(folder: Path, name: str) -> dict[str, str]:
    found = find((folder / name).as_uri())
    assert found is not None
    return found.created_by


def test_after_a_change_of_the_code_a_stage_goes_on_and_says_so(
    stage_inputs: Any, unbroken: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = replace(stage_inputs.job(tmp_path), code_version="a" * 64, commit="commit-a")
    assert not run(first, stop_after=2)
    assert "code_changes" not in created_by(tmp_path, "work/step-000002")
    second = replace(first, code_version="b" * 64, commit="commit-b")
    assert not run(second, stop_after=3)  # at step 5
    assert run(second)
    said = (
        "resumes at step 2 with other code: checkpoint written by commit commit-a (version aaaaaaaaaaaa), now commit "
        "commit-b (version bbbbbbbbbbbb)"
    )
    assert [event["text"] for event in events(tmp_path, "note") if "other code" in event["text"]] == [said]
    assert said in [entry.message for entry in caplog.records if entry.levelname == "WARNING"]
    change = "step 2: commit commit-a (version aaaaaaaaaaaa) -> commit commit-b (version bbbbbbbbbbbb)"
    assert [event["code_changes"] for event in events(tmp_path, "start")] == [[], [change], [change]]
    assert [event["resumed_from_step"] for event in events(tmp_path, "start")] == [0, 2, 5]
    assert created_by(tmp_path, "work/step-000006")["code_changes"] == change
    assert created_by(tmp_path, "model")["code_changes"] == change
    assert weights(tmp_path) == weights(unbroken), "the code did not really change"
    assert created_by(unbroken, "model") == {"step": "train-vision-adaptation"}


def test_restart_removes_what_other_code_trained(stage_inputs: Any, unbroken: Path, tmp_path: Path) -> None:
    changes = {"engine.on_code_change": "restart"}
    first = replace(stage_inputs.job(tmp_path, **changes), code_version="a" * 64, commit="commit-a")
    assert not run(first, stop_after=5)
    assert not run(first, stop_after=1), "the same code goes on"
    second = replace(first, code_version="b" * 64, commit="commit-b")
    assert not run(second, stop_after=2)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["step-000002"], "the others are removed"
    assert run(second)
    assert [event["resumed_from_step"] for event in events(tmp_path, "start")] == [0, 5, 0, 2]
    (note,) = [event["text"] for event in events(tmp_path, "note") if "starts again" in event["text"]]
    assert "engine.on_code_change=restart: the checkpoint of step 6 was trained by other code" in note
    assert "commit commit-a (version aaaaaaaaaaaa) -> commit commit-b (version bbbbbbbbbbbb)" in note
    assert "code_changes" not in created_by(tmp_path, "model")
    assert weights(tmp_path) == weights(unbroken)


def test_a_checkpoint_from_before_code_was_noted_is_of_unknown_code(stage_inputs: Any, tmp_path: Path) -> None:
    job = stage_inputs.job(tmp_path)
    assert not run(job, stop_after=3)
    folder, path = tmp_path / "work" / "step-000003", files_of(tmp_path, 3)["trainer.json"]
    state = json.loads(path.read_text())
    for name in ("code_version", "commit", "code_changes"):
        state.pop(name)
    path.write_text(json.dumps(state))
    write_manifest(folder, kind="training-state", created_by={})
    assert run(job)
    assert [event["resumed_from_step"] for event in events(tmp_path, "start")] == [0, 3]
    assert "written by commit unknown (version unknown)" in events(tmp_path, "note")[-1]["text"]
