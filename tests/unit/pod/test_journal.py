"""The events of pods: passed on once, kept in the store."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vl3.errors import StorageError
from vl3.pod import journal as journal_module
from vl3.pod.journal import EventJournal, event_line
from vl3.store.objects import FileStore

METRICS = {"type": "metrics", "step": 2, "time": 1.5, "values": {"loss": 2.5}, "text": "ü"}
START = {"type": "start", "resumed_from_step": 0}


def append(path: Path, *events: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_events_are_passed_on_once_and_kept(tmp_path: Path) -> None:
    kept, path = tmp_path / "work" / "events.jsonl", tmp_path / "events.jsonl"
    seen: list[dict[str, Any]] = []
    with EventJournal(path, (tmp_path / "work").as_uri(), seen.append) as journal:
        journal.poll()
        append(path, START)
        with path.open("a") as file:
            file.write('{"type": "no')
        journal.poll()
        assert seen == [START]
        with path.open("a") as file:
            file.write('te", "text": "n"}\nno json\n')
        append(path, METRICS)
    assert seen == [START, {"type": "note", "text": "n"}, METRICS]
    assert kept.read_bytes() == path.read_bytes()
    assert journal.lost is None


def test_a_new_pod_continues_the_file_without_saying_it_again(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    append(tmp_path / "work" / "events.jsonl", {"type": "start", "resumed_from_step": 0}, METRICS)
    seen: list[dict[str, Any]] = []
    path = tmp_path / "events.jsonl"
    with EventJournal(path, (tmp_path / "work").as_uri(), seen.append):
        append(path, {"type": "start", "resumed_from_step": 2})
    assert seen == [{"type": "start", "resumed_from_step": 2}]
    lines = (tmp_path / "work" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line).get("resumed_from_step") for line in lines] == [0, None, 2]


def test_events_are_uploaded_now_and_then_and_before_the_weights_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, path = tmp_path / "work" / "events.jsonl", tmp_path / "events.jsonl"
    with monkeypatch.context() as quick:
        quick.setattr(journal_module, "_UPLOAD_SECONDS", 0.05)
        with EventJournal(path, (tmp_path / "work").as_uri(), lambda event: None):
            append(path, METRICS)
            wait_until(lambda: kept.exists() and kept.read_bytes() == path.read_bytes())
    with EventJournal(path, (tmp_path / "work").as_uri(), lambda event: None) as journal:
        append(path, {"type": "progress", "done": 3, "total": 8, "text": ""})
        journal.poll()
        time.sleep(0.2)
        assert "progress" not in kept.read_text()
        append(path, {"type": "progress", "done": 8, "total": 8, "text": ""})
        journal.poll()
        wait_until(lambda: kept.read_bytes() == path.read_bytes())


def test_a_store_that_fails_delays_nothing_and_is_said_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: FileStore, path: Path, key: str) -> None:
        raise StorageError("the store is away")

    monkeypatch.setattr(FileStore, "put_file", fail)
    monkeypatch.setattr(journal_module, "_UPLOAD_SECONDS", 0.05)
    seen: list[dict[str, Any]] = []
    path = tmp_path / "events.jsonl"
    with EventJournal(path, (tmp_path / "work").as_uri(), seen.append) as journal:
        append(path, METRICS)
        wait_until(lambda: "retrying later: the store is away" in caplog.text)
        journal.poll()
    assert seen == [METRICS]
    assert str(journal.lost) == "the store is away"


def test_an_event_line_is_one_line() -> None:
    assert event_line({"type": "note", "text": "ä\nb"}) == 'vl3-event {"type": "note", "text": "ä\\nb"}'
