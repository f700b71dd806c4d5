"""Resumable checkpoints in an object store: a real S3 server, writers that are killed, a store that is slow."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vl3.store.artifacts import find
from vl3.store.objects import open_store
from vl3.training import checkpoint as checkpoint_module
from vl3.training import loop
from vl3.training.checkpoint import Checkpoint, Checkpoints, TrainerState
from vl3.training.code_change import CodeHistory
from vl3.training.loop import CheckpointSaver, StepDone

FINGERPRINT = "e" * 64
NUMBERS = 4_000_000
"""Of each of three tensors: 48 MB together, in parts of 16 MiB."""
WRITER = f"""
import sys, torch
from vl3.training.checkpoint import Checkpoint, Checkpoints, TrainerState
checkpoints = Checkpoints(sys.argv[1], fingerprint="{FINGERPRINT}", keep=2, created_by={{}})
checkpoints.clean()
newest = checkpoints.newest(print)
step = newest.trainer.step if newest else 0
print("from", step, flush=True)
while True:
    step += 1
    tensors = {{kind: {{"w": torch.full(({NUMBERS},), float(step))}} for kind in ("weights", "exp_avg", "exp_avg_sq")}}
    trainer = TrainerState(step=step, optimizer_step=step, fingerprint="{FINGERPRINT}", window={{}})
    print("saving", step, flush=True)
    checkpoints.save(Checkpoint(trainer=trainer, tensors=tensors))
    checkpoints.wait()
    print("saved", step, flush=True)
"""


@pytest.fixture
def work_uri(s3_root: str) -> str:
    return f"{s3_root}/work"


def open_checkpoints(work_uri: str) -> Checkpoints:
    return Checkpoints(work_uri, fingerprint=FINGERPRINT, keep=2, created_by={})


def make_checkpoint(step: int, numbers: int = 6) -> Checkpoint:
    tensors = {kind: {"w": torch.full((numbers,), float(step))} for kind in ("weights", "exp_avg", "exp_avg_sq")}
    trainer = TrainerState(step=step, optimizer_step=step, fingerprint=FINGERPRINT, window={})
    return Checkpoint(trainer=trainer, tensors=tensors)


def test_the_last_are_kept_and_the_machines_copies_go(work_uri: str, tmp_path: Path) -> None:
    checkpoints = open_checkpoints(work_uri)
    for step in (10, 20, 30):
        checkpoints.save(make_checkpoint(step))
    checkpoints.close()
    assert {key.partition("/")[0] for key in open_store(work_uri).list()} == {"step-000020", "step-000030"}
    again = open_checkpoints(work_uri)
    newest = again.newest(print)
    assert newest is not None
    assert newest.trainer.step == 30
    copies = again._copies
    assert copies.is_dir()
    again.drop_copies()
    assert not copies.exists()
    assert torch.equal(newest.tensors["exp_avg"]["w"], torch.full((6,), 30.0))
    again.close()


def test_what_a_killed_upload_left_is_removed(work_uri: str, tmp_path: Path) -> None:
    checkpoints = open_checkpoints(work_uri)
    checkpoints.save(make_checkpoint(10))
    checkpoints.wait()
    (tmp_path / "half").write_bytes(b"half")
    open_store(work_uri).put_file(tmp_path / "half", "step-000020/0123456789abcdef/weights.safetensors")
    open_store(work_uri).put_file(tmp_path / "half", "events.jsonl")
    checkpoints.clean()
    keys = open_store(work_uri).list()
    assert {key.partition("/")[0] for key in keys} == {"step-000010", "events.jsonl"}
    checkpoints.close()


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(work_uri: str, tmp_path: Path) -> None:
    saved = 0
    for attempt in range(3):
        program = [sys.executable, "-c", WRITER, work_uri]
        with (tmp_path / "out").open("w") as out:
            writer = subprocess.Popen(program, stdout=out, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 900
        while f"saving {saved + 2}" not in (text := (tmp_path / "out").read_text()):
            assert writer.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.01)
        time.sleep(0.15 * attempt)  # in the writing of files, in the upload, or after it
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        text = (tmp_path / "out").read_text()
        assert f"from {saved}\n" in text
        said = max(int(line.split()[1]) for line in text.splitlines() if line.startswith("saved"))
        reader = open_checkpoints(work_uri)
        newest = reader.newest(print)
        assert newest is not None
        assert newest.trainer.step in (said, said + 1)  # published, and killed before it could say so
        assert torch.equal(newest.tensors["weights"]["w"], torch.full((NUMBERS,), float(newest.trainer.step)))
        saved = newest.trainer.step
        reader.drop_copies()
        reader.close()


def test_training_does_not_wait_for_a_slow_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_open = threading.Event()
    publish = checkpoint_module.publish

    def publish_slowly(*arguments: Any, **settings: Any) -> Any:
        is_open.wait(900)
        return publish(*arguments, **settings)

    monkeypatch.setattr(checkpoint_module, "publish", publish_slowly)
    monkeypatch.setattr(loop, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(loop, "read_state", lambda engine, named: make_checkpoint(0).tensors)
    monkeypatch.setattr(loop, "optimizer_step_count", lambda engine: 1)
    checkpoints = open_checkpoints((tmp_path / "work").as_uri())
    meter: Any = SimpleNamespace(gather=lambda: SimpleNamespace(to_dict=dict))
    engine: Any = SimpleNamespace(deepspeed=None, device=None)
    monkeypatch.setattr(loop, "merge_ledgers", lambda ledger, device: [])
    ledger: Any = None
    code = CodeHistory(version="v", commit="c", changes=())
    skipped: Any = SimpleNamespace(steps=[])
    save = CheckpointSaver(
        checkpoints, meter, engine, [], every_steps=1, is_writer=True, code=code, skipped=skipped, ledger=ledger
    )
    started = time.monotonic()
    for done in (1, 2, 3):
        save(StepDone(done=done, total=9, learning_rates={}, is_applied=True, stop_requested=False))
    assert time.monotonic() - started < 600
    assert caplog.text.count("a checkpoint is skipped: the previous one is still being written to file://") == 2
    threading.Timer(0.3, is_open.set).start()
    save(StepDone(done=4, total=9, learning_rates={}, is_applied=True, stop_requested=True))  # the last word waits
    checkpoints.close()
    assert [find(f"{checkpoints.work_uri}/step-{step:06d}") is not None for step in (1, 2, 3, 4)] == [
        True, False, False, True
    ]  # fmt: skip
