"""Resumable checkpoints on disk: the format, what is kept, and what damage does."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import load_file

from tests.support.checkpoints import InventedState, make_trainer, open_checkpoints
from tests.support.documents import changed
from vl3.errors import StorageError
from vl3.store.artifacts import find
from vl3.store.manifest import write_manifest
from vl3.training.checkpoint import Checkpoints, TrainerState
from vl3.training.events import EventLog, read_events
from vl3.training.fragments import WEIGHTS
from vl3.training.restore import restore
from vl3.training.saver import Saver

pytestmark = pytest.mark.usefixtures("process_group")
Save = Callable[..., InventedState]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves an invented state at a step; returns it."""

    def call(step: int, **changes: Any) -> InventedState:
        trainer = make_trainer(step, **changes)
        state = InventedState(seed=step)
        with contextlib.closing(open_saver(tmp_path, state)) as saver:
            assert saver.has_room(step)
            saver.save(trainer)
            assert saver.settle(0) == ""
        return state

    return call


def open_saver(folder: Path, state: InventedState, **settings: Any) -> Saver:
    state_: Any = state
    return Saver(open_checkpoints(folder, **settings), state_, EventLog(folder / "events.jsonl"), rank=0, world_size=1)


def resume(folder: Path, notes: list[str], state: InventedState | None = None, **settings: Any) -> TrainerState | None:
    into: Any = state or InventedState(seed=99)
    return restore(open_checkpoints(folder, **settings), into, note=notes.append, is_wanted=lambda found: True)


def files_of(folder: Path, step: int) -> dict[str, Path]:
    (attempt,) = (path for path in (folder / "work" / f"step-{step:06d}").iterdir() if path.is_dir())
    return {path.name: path for path in attempt.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "work").iterdir())


def test_a_checkpoint_is_read_as_it_was_written(save: Save, tmp_path: Path) -> None:
    written, read, notes = save(50), InventedState(seed=1), []
    assert not read.equals(written)
    assert resume(tmp_path, notes, read) == make_trainer(50)  # floats too, to the last bit
    assert read.equals(written)
    assert read.step_count == 50
    reference = find(open_checkpoints(tmp_path).uri(50))
    assert reference is not None
    assert reference.kind == "training-state"
    assert reference.created_by == {"step": "train", "training_step": "50"}
    assert notes == []


def test_files_are_plain_safetensors_named_by_parameter_and_range(save: Save, tmp_path: Path) -> None:
    written = save(50)
    tensors = load_file(files_of(tmp_path, 50)["r00000-exp_avg-0000.safetensors"])
    assert set(tensors) == {"exp_avg/a.weight[0:6]", "exp_avg/b.bias[0:2]"}
    assert torch.equal(tensors["exp_avg/b.bias[0:2]"], written.values["exp_avg"][1])


def test_the_last_and_every_mth_are_kept(tmp_path: Path) -> None:
    state = InventedState()
    with contextlib.closing(open_saver(tmp_path, state, keep=2, keep_every_steps=100)) as saver:
        for step in (50, 100, 150, 200, 250, 300):
            assert saver.has_room(step)
            saver.save(make_trainer(step))
            assert saver.settle(0) == ""
    assert names(tmp_path) == ["step-000100", "step-000200", "step-000250", "step-000300"]


def test_the_last_steps_weights_do_not_push_out_what_can_be_resumed(save: Save, tmp_path: Path) -> None:
    for step in (10, 20):
        save(step)
    state = InventedState()
    with contextlib.closing(open_saver(tmp_path, state, keep=1)) as saver:
        saver.has_room(30)
        saver.save(make_trainer(30), (WEIGHTS,))
        assert saver.settle(0) == ""
    assert names(tmp_path) == ["step-000010", "step-000020", "step-000030"]
    assert [file for file in files_of(tmp_path, 30) if "exp_avg" in file] == []


def test_there_may_be_none(tmp_path: Path) -> None:
    notes: list[str] = []
    assert resume(tmp_path, notes) is None
    assert notes == []
    with pytest.raises(StorageError, match=r"step-000003: there is no checkpoint with a valid manifest"):
        open_checkpoints(tmp_path).load(3)


def test_what_a_killed_writer_left_is_passed_over_and_goes_with_the_next(save: Save, tmp_path: Path) -> None:
    save(10)
    left = tmp_path / "work" / "step-000020" / "0123"
    left.mkdir(parents=True)
    (left / "r00000-weights-0000.safetensors").write_bytes(b"half")
    (tmp_path / "work" / "notes").mkdir()  # somebody else's
    notes: list[str] = []
    found = resume(tmp_path, notes)
    assert found is not None
    assert found.step == 10
    assert notes[0].startswith("checkpoint of step 20 is not used: ")
    save(20)  # again, over what was left
    assert not left.exists() or not list(left.iterdir())
    save(30)
    assert names(tmp_path) == ["notes", "step-000020", "step-000030"]


def truncate(files: dict[str, Path]) -> None:
    path = files["r00000-exp_avg-0000.safetensors"]
    path.write_bytes(path.read_bytes()[:-10])


def flip(files: dict[str, Path]) -> None:
    path = files["r00000-weights-0000.safetensors"]
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def lose_file(files: dict[str, Path]) -> None:
    files["r00000-exp_avg_sq-0000.safetensors"].unlink()


def lose_state(files: dict[str, Path]) -> None:
    files["trainer.json"].unlink()


def damage_index(files: dict[str, Path]) -> None:
    files["index.json"].write_text("{}")


def lose_part(files: dict[str, Path]) -> None:
    """As if rank 0 had written the manifest without a rank's files."""
    index = json.loads(files["index.json"].read_text())
    name = next(name for name in index["files"] if "exp_avg-" in name)
    del index["files"][name]
    files["index.json"].write_text(json.dumps(index))
    write_manifest(files["index.json"].parents[1], kind="training-state", created_by={})


def nonsense_manifest(files: dict[str, Path]) -> None:
    (files["index.json"].parents[1] / "manifest.json").write_text("{")


def of_another_step(files: dict[str, Path]) -> None:
    folder = files["index.json"].parents[1]
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-000010"), folder)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, r"exp_avg-0000.safetensors: has \d+ bytes and should have \d+"),
        (flip, r"weights-0000.safetensors: is damaged \(sha256 \w+, expected \w+\)"),
        (lose_file, r"exp_avg_sq-0000.safetensors: the file is missing"),
        (lose_state, r"trainer.json: the file is missing"),
        (damage_index, r"index.json: has 2 bytes and should have"),
        (lose_part, r"the part of a rank is missing: exp_avg/a.weight\[0:6\] is in no file"),
        (nonsense_manifest, r"step-000020: not a valid manifest"),
        (of_another_step, r"the checkpoint is one of step 10"),
    ],
)
def test_damage_is_named_the_one_before_is_taken_and_nothing_is_deleted(
    save: Save, tmp_path: Path, damage: Callable[[dict[str, Path]], None], says: str
) -> None:
    first = save(10)
    save(20)
    damage(files_of(tmp_path, 20))
    notes, read = [], InventedState(seed=1)
    found = resume(tmp_path, notes, read)
    assert found is not None
    assert found.step == 10
    assert read.equals(first)
    assert len(notes) == 1
    assert notes[0].startswith("checkpoint of step 20 is not used: ")
    assert re.search(says, notes[0]), notes[0]

    damage(files_of(tmp_path, 10)) if damage is not of_another_step else shutil.rmtree(tmp_path / "work/step-000010")
    before, untouched = sorted((tmp_path / "work").rglob("*")), InventedState(seed=1)
    with pytest.raises(
        StorageError, match=r"none of the stage's \d checkpoint\(s\) at .* Nothing was deleted"
    ) as raised:
        resume(tmp_path, [], untouched)
    assert re.search(says, str(raised.value))
    assert "step-000020" in str(raised.value)
    assert sorted((tmp_path / "work").rglob("*")) == before
    assert untouched.equals(InventedState(seed=1)), "the engine is not touched before all is read"


def test_a_checkpoint_of_another_configuration_is_not_damage(save: Save, tmp_path: Path) -> None:
    save(10)
    notes: list[str] = []
    assert resume(tmp_path, notes, fingerprint="0" * 64) is None
    assert "belongs to another configuration, dataset or initial model (fingerprint ffffffffffff, here 0" in notes[0]


def test_a_link_in_the_place_of_a_checkpoint_leads_nowhere(save: Save, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "manifest.json").write_text("dear")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "step-000010").symlink_to(precious)
    (tmp_path / "work" / "step-000020").symlink_to(precious)
    save(10)
    assert not (tmp_path / "work" / "step-000010").is_symlink()
    open_checkpoints(tmp_path).drop()
    assert list((tmp_path / "work").iterdir()) == []
    assert {path.name: path.read_text() for path in precious.iterdir()} == {"manifest.json": "dear"}


STATE = {
    "step": 10, "optimizer_step": 10, "fingerprint": "f" * 64, "window": {"losses": [0.5]}, "code_version": "ab",
    "commit": "cd", "code_changes": ["step 5: a -> b"],
}  # fmt: skip


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> Path:
    folder = tmp_path_factory.mktemp("forged")
    with contextlib.closing(open_saver(folder, InventedState())) as saver:
        saver.has_room(10)
        saver.save(make_trainer(10))
        assert saver.settle(0) == ""
    return folder


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed(STATE))
def test_a_state_of_any_content_is_a_state_or_refused(data: bytes, forged: Path) -> None:
    files_of(forged, 10)["trainer.json"].write_bytes(data)
    write_manifest(forged / "work" / "step-000010", kind="training-state", created_by={})
    checkpoints: Checkpoints = open_checkpoints(forged)
    try:
        state = checkpoints.load(10).trainer
    except StorageError:
        return
    assert (state.step, type(state.optimizer_step), type(state.commit)) == (10, int, str)
    assert all(isinstance(change, str) for change in state.code_changes)


def test_an_event_tells_what_was_saved_and_how_long_it_took(save: Save, tmp_path: Path) -> None:
    save(10)
    (event,) = [event for event in read_events(tmp_path / "events.jsonl") if event["type"] == "checkpoint"]
    assert (event["state"], event["step"]) == ("saved", 10)
    assert event["rank_bytes"] > 3 * 8 * 4
    assert 0 <= event["stall_seconds"] < event["write_seconds"] + 5
