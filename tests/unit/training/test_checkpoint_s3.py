"""Resumable checkpoints in an object store: a real S3 server, writers that are killed, a store that goes away."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkpoints import InventedState, make_trainer, open_checkpoints
from vl3.store.objects import open_store
from vl3.training.events import EventLog
from vl3.training.restore import restore
from vl3.training.saver import Saver

pytestmark = pytest.mark.usefixtures("process_group")
NUMBERS = 4_000_000
"""Of each of three tensors: 48 MB together, in files of 1 MiB."""
WRITER = f"""
import sys, torch.distributed as dist
from tests.support.checkpoints import InventedState, make_trainer, open_checkpoints
from vl3.training.events import EventLog
from vl3.training.restore import restore
from vl3.training.saver import Saver
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=0, world_size=1)
checkpoints, state = open_checkpoints(sys.argv[1]), InventedState({{"w": {NUMBERS}}})
found = restore(checkpoints, state, note=print, is_wanted=lambda found: True)
step = found.step if found else 0
print("from", step, flush=True)
saver = Saver(checkpoints, state, EventLog(None), rank=0, world_size=1)
while True:
    step += 1
    for tensors in state.values.values():
        tensors[0].fill_(step)
    print("saving", step, flush=True)
    assert saver.has_room(step)
    saver.save(make_trainer(step))
    assert saver.settle(0) == ""
    print("saved", step, flush=True)
"""


@pytest.fixture
def work_uri(s3_root: str) -> str:
    return f"{s3_root}/work"


def save(work_uri: str, *steps: int) -> InventedState:
    state = InventedState()
    as_engine: Any = state
    saver = Saver(open_checkpoints(work_uri), as_engine, EventLog(None), rank=0, world_size=1)
    with contextlib.closing(saver):
        for step in steps:
            assert saver.has_room(step)
            saver.save(make_trainer(step))
            assert saver.settle(0) == ""
    return state


def load(work_uri: str, state: InventedState, notes: list[str] | None = None) -> int:
    into: Any = state
    note = (notes if notes is not None else []).append
    found = restore(open_checkpoints(work_uri), into, note=note, is_wanted=lambda found: True)
    return found.step if found else 0


def test_the_last_are_kept_and_read_without_a_copy_on_the_machine(work_uri: str) -> None:
    written, read = save(work_uri, 10, 20, 30), InventedState(seed=5)
    assert {key.partition("/")[0] for key in open_store(work_uri).list()} == {"step-000020", "step-000030"}
    assert load(work_uri, read) == 30
    assert read.equals(written)


def test_what_a_killed_upload_left_is_passed_over_and_goes_with_the_next(work_uri: str, tmp_path: Path) -> None:
    save(work_uri, 10)
    (tmp_path / "half").write_bytes(b"half")
    open_store(work_uri).put_file(tmp_path / "half", "step-000020/0123456789abcdef/weights.safetensors")
    open_store(work_uri).put_file(tmp_path / "half", "events.jsonl")
    notes: list[str] = []
    assert load(work_uri, InventedState(seed=5), notes) == 10
    assert "step-000020: there is no checkpoint with a valid manifest" in notes[0]
    save(work_uri, 30)
    keys = open_store(work_uri).list()
    assert {key.partition("/")[0] for key in keys} == {"step-000010", "step-000030", "events.jsonl"}


def test_an_object_that_was_replaced_is_found(work_uri: str, tmp_path: Path) -> None:
    save(work_uri, 10, 20)
    (key,) = (key for key in open_store(work_uri).list("step-000020/") if "exp_avg-" in key)
    data = bytearray(open_store(work_uri).read(key) or b"")
    data[-1] ^= 255
    (tmp_path / "other").write_bytes(data)
    open_store(work_uri).put_file(tmp_path / "other", key)
    notes: list[str] = []
    assert load(work_uri, InventedState(seed=5), notes) == 10
    assert f"{key.rpartition('/')[2]}: is damaged" in notes[0]


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(work_uri: str, tmp_path: Path) -> None:
    saved = 0
    for attempt in range(3):
        program = [sys.executable, "-c", WRITER, work_uri, str(tmp_path / f"group-{attempt}")]
        with (tmp_path / "out").open("w") as out:
            writer = subprocess.Popen(program, stdout=out, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 900
        while f"saving {saved + 2}" not in (text := (tmp_path / "out").read_text()):
            assert writer.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.01)
        time.sleep(0.15 * attempt)  # in the upload of files, before the manifest, or after it
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        text = (tmp_path / "out").read_text()
        assert f"from {saved}\n" in text
        said = max(int(line.split()[1]) for line in text.splitlines() if line.startswith("saved"))
        read = InventedState({"w": NUMBERS})
        step = load(work_uri, read)
        assert step in (said, said + 1)  # published, and killed before it could say so
        assert all(bool((tensors[0] == step).all()) for tensors in read.values.values())
        saved = step
