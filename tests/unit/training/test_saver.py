"""Saving beside training: a store that is slow, full or away, and a stage that is asked to stop meanwhile."""

import contextlib
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkpoints import InventedState, make_trainer, open_checkpoints
from vl3.errors import StorageError
from vl3.training import fragment_files
from vl3.training import saver as saver_module
from vl3.training.events import EventLog, read_events
from vl3.training.saver import Saver
from vl3.training.snapshot import Snapshot

pytestmark = pytest.mark.usefixtures("process_group")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_module, "PATIENCE_SECONDS", 0.05)


@pytest.fixture
def state() -> InventedState:
    return InventedState({"a.weight": 700_000, "b.bias": 3})


@pytest.fixture
def saver(tmp_path: Path, state: Any) -> Iterator[Saver]:
    events = EventLog(tmp_path / "events.jsonl")
    with contextlib.closing(Saver(open_checkpoints(tmp_path), state, events, rank=0, world_size=1)) as opened:
        yield opened


def told(folder: Path) -> list[tuple[str, int]]:
    events = read_events(folder / "events.jsonl")
    return [(event["state"], event["step"]) for event in events if event["type"] == "checkpoint"]


def notes(folder: Path) -> list[str]:
    return [event["text"] for event in read_events(folder / "events.jsonl") if event["type"] == "note"]


def test_training_does_not_wait_for_a_slow_store_and_a_skipped_save_copies_nothing(
    saver: Saver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_open, taken, write = threading.Event(), [], fragment_files.write_files
    take = Snapshot.take

    def write_slowly(*arguments: Any, **settings: Any) -> None:
        is_open.wait(900)
        write(*arguments, **settings)

    def count(self: Snapshot, *kinds: Any) -> None:
        taken.append(1)
        take(self, *kinds)

    monkeypatch.setattr(saver_module, "write_files", write_slowly)
    monkeypatch.setattr(Snapshot, "take", count)
    assert saver.has_room(1)
    saver.save(make_trainer(1))
    assert not saver.has_room(2)
    assert not saver.has_room(3)
    assert len(taken) == 1
    assert "the checkpoint of step 3 is skipped: the previous one is still being written to file://" in caplog.text
    threading.Timer(0.2, is_open.set).start()
    assert saver.has_room(4, must_wait=True), "the last word waits"
    saver.save(make_trainer(4))
    assert saver.settle(0) == ""
    assert told(tmp_path) == [("skipped", 2), ("skipped", 3), ("saved", 1), ("saved", 4)]


def refusing(times: int) -> Callable[..., None]:
    write, left = fragment_files.write_files, [times]

    def refuse(*arguments: Any, **settings: Any) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise StorageError("the store is away")
        write(*arguments, **settings)

    return refuse


def test_a_store_that_is_away_is_asked_again(saver: Saver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_module, "write_files", refusing(2))
    monkeypatch.setattr(saver_module._PAUSES.__class__, "after", lambda self, failures: 0.02)
    saver.has_room(1)
    saver.save(make_trainer(1))
    assert saver.settle(60) == ""
    assert told(tmp_path) == [("saved", 1)]
    assert notes(tmp_path) == ["the checkpoint of step 1 is not written yet and tried again: the store is away"]


def test_what_a_store_refuses_is_given_up_for_the_next(
    saver: Saver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver_module, "write_files", refusing(1))
    monkeypatch.setattr(saver_module._PAUSES.__class__, "after", lambda self, failures: 600)
    saver.has_room(1)
    saver.save(make_trainer(1))
    while "tried again" not in (tmp_path / "events.jsonl").read_text():
        time.sleep(0.01)
    assert saver.has_room(2)
    saver.save(make_trainer(2))
    assert saver.settle(0) == ""
    assert told(tmp_path) == [("lost", 1), ("saved", 2)]
    assert notes(tmp_path)[1] == (
        "the checkpoint of step 1 is lost, because the store refused it: rank 0: the store is away"
    )
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["step-000002"]


def test_a_full_disk_ends_nothing_and_leaves_nothing_half_written(
    saver: Saver, tmp_path: Path, state: InventedState
) -> None:
    """A limit on the size of files stands for a full disk: the kernel refuses the write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    saver.has_room(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        saver.save(make_trainer(1))
        lost = saver.settle(0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written (File too large)" in lost
    assert told(tmp_path) == [("lost", 1)]
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file() and path.stat().st_size]
    assert saver.has_room(2), "it goes on"
    saver.save(make_trainer(2))
    assert saver.settle(0) == ""
    assert told(tmp_path) == [("lost", 1), ("saved", 2)]


def test_host_memory_is_the_ranks_own_share(saver: Saver, state: InventedState) -> None:
    assert saver.host_bytes == 3 * 700_003 * 4
    half: Any = Saver.__new__(Saver)
    half._snapshot = Snapshot(state, 0, 2)  # type: ignore[arg-type]
    assert half.host_bytes == 3 * 350_001 * 4


def test_a_defect_in_the_thread_is_not_swallowed(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise TypeError("a defect")

    monkeypatch.setattr(saver_module, "write_files", fail)
    saver.has_room(1)
    saver.save(make_trainer(1))
    with pytest.raises(TypeError, match="a defect"):
        saver.settle(0)


def test_at_the_end_a_rank_that_is_gone_is_not_waited_for_as_long_as_torchrun_would(
    saver: Saver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver_module, "_LAST_REPORTS_SECONDS", 0.2)
    monkeypatch.setattr(saver_module, "_CLOSING_SECONDS", 900)
    saver.has_room(1)
    saver._world_size = 2  # the other one never reports
    saver.save(make_trainer(1))
    started = time.monotonic()
    saver.close()
    assert time.monotonic() - started < 30
    assert told(tmp_path) == []
    assert not list((tmp_path / "work").rglob("manifest*"))
