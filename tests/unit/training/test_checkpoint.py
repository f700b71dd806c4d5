"""Resumable checkpoints on disk."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from tests.support.documents import changed
from vl3.errors import StorageError
from vl3.store.artifacts import find
from vl3.store.manifest import write_manifest
from vl3.training.checkpoint import Checkpoint, Checkpoints, TrainerState


def make_checkpoint(step: int) -> Checkpoint:
    trainer = TrainerState(step=step, optimizer_step=step, fingerprint="f" * 64, window={"losses": [0.1 + 0.2, step]})
    tensors = {kind: {"a.weight": torch.full((2, 3), float(step))} for kind in ("weights", "exp_avg", "exp_avg_sq")}
    return Checkpoint(trainer=trainer, tensors=tensors)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    opened = open_checkpoints(tmp_path)
    yield opened
    opened.close()


def open_checkpoints(folder: Path, fingerprint: str = "f" * 64) -> Checkpoints:
    return Checkpoints((folder / "work").as_uri(), fingerprint=fingerprint, keep=2, created_by={"step": "train"})


def test_a_checkpoint_is_read_as_it_was_written(checkpoints: Checkpoints) -> None:
    written = make_checkpoint(50)
    checkpoints.save(written)
    checkpoints.wait()
    read = checkpoints.load(50)
    assert read.trainer == written.trainer  # floats too, to the last bit
    assert torch.equal(read.tensors["exp_avg"]["a.weight"], torch.full((2, 3), 50.0))
    reference = find(f"{checkpoints.work_uri}/step-000050")
    assert reference is not None
    assert reference.kind == "training-state"
    assert reference.created_by == {"step": "train", "training_step": "50"}


def test_only_the_last_are_kept_and_the_newest_is_found(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for step in (10, 20, 1000000):
        checkpoints.save(make_checkpoint(step))
    checkpoints.wait()
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["step-000020", "step-1000000"]
    newest = checkpoints.newest(lambda text: None)
    assert newest is not None
    assert newest.trainer.step == 1000000


def test_there_may_be_none(checkpoints: Checkpoints) -> None:
    notes: list[str] = []
    assert checkpoints.newest(notes.append) is None
    assert notes == []
    with pytest.raises(StorageError, match=r"step-000003: there is no checkpoint with a valid manifest"):
        checkpoints.load(3)


def test_damaged_and_foreign_ones_are_passed_over_by_name(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for step in (10, 20):
        checkpoints.save(make_checkpoint(step))
    checkpoints.wait()
    (tmp_path / "work" / "step-000020" / "manifest.json").write_text("{")
    (tmp_path / "work" / "step-000030").mkdir()
    (tmp_path / "work" / "notes").mkdir()
    notes: list[str] = []
    newest = checkpoints.newest(notes.append)
    assert newest is not None
    assert newest.trainer.step == 10
    assert [note.partition(":")[0] for note in notes] == [
        "checkpoint of step 30 is not used",
        "checkpoint of step 20 is not used",
    ]
    other = open_checkpoints(tmp_path, fingerprint="0" * 64)
    with pytest.raises(StorageError, match=r"fingerprint ffffffffffff, here 000000000000"):
        other.load(10)
    other.close()


def test_a_full_disk_is_said_at_the_next_chance_and_nothing_half_written_stays(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("vl3.training.checkpoint.save_file", full)
    checkpoints.save(make_checkpoint(10))
    with pytest.raises(StorageError, match=r"the disk is full \(72 bytes were to be written\)"):
        checkpoints.wait()
    assert list((tmp_path / "work").iterdir()) == []


def test_safetensors_own_error_names_the_place(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    def fail(tensors: object, path: Path) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("vl3.training.checkpoint.save_file", fail)
    checkpoints.save(make_checkpoint(10))
    with pytest.raises(StorageError, match=r"work.*the checkpoint's weights cannot be written .*No space left"):
        checkpoints.wait()


def test_what_a_killed_writer_left_is_removed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save(make_checkpoint(10))
    checkpoints.wait()
    (tmp_path / "work" / ".writing-abc").mkdir()
    (tmp_path / "work" / ".step-000020.123.tmp").mkdir()
    (tmp_path / "work" / ".notes").mkdir()  # somebody else's
    checkpoints.clean()
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [".notes", "step-000010"]


def test_a_link_in_the_place_of_a_checkpoint_leads_nowhere(checkpoints: Checkpoints, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in ("manifest.json", "weights.safetensors"):
        (precious / name).write_text("dear")
    (tmp_path / "work").mkdir()
    for name in ("step-000010", ".writing-abc", ".step-000020.123.tmp"):
        (tmp_path / "work" / name).symlink_to(precious)
    checkpoints.clean()
    checkpoints.drop()
    assert list((tmp_path / "work").iterdir()) == []
    assert {path.name: path.read_text() for path in precious.iterdir()} == dict.fromkeys(
        ("manifest.json", "weights.safetensors"), "dear"
    )


STATE = {
    "step": 10, "optimizer_step": 10, "fingerprint": "f" * 64, "window": {"losses": [0.5]}, "code_version": "ab",
    "commit": "cd", "code_changes": ["step 5: a -> b"],
}  # fmt: skip


def forge(folder: Path, data: bytes) -> None:
    """Put a state into a checkpoint, with a manifest that vouches for it."""
    (folder / "trainer.json").write_bytes(data)
    write_manifest(folder, kind="training-state", created_by={})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed(STATE))
def test_a_state_of_any_content_is_a_state_or_passed_over(data: bytes, tmp_path: Path) -> None:
    with contextlib.closing(open_checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(make_checkpoint(10))
        checkpoints.wait()
        forge(tmp_path / "work" / "step-000010", data)
        notes: list[str] = []
        found = checkpoints.newest(notes.append)
        assert (found is None) == (len(notes) == 1)
        if found is not None:
            state = found.trainer
            assert (state.step, type(state.optimizer_step), type(state.commit)) == (10, int, str)
            assert all(isinstance(change, str) for change in state.code_changes)
        checkpoints.drop()


def test_a_checkpoint_of_another_step_is_passed_over(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save(make_checkpoint(10))
    checkpoints.wait()
    (tmp_path / "work" / "step-000010").rename(tmp_path / "work" / "step-000090")
    notes: list[str] = []
    assert checkpoints.newest(notes.append) is None
    assert "the checkpoint is one of step 10" in notes[0]
