"""The event file."""

import json
import re
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vl3.errors import StorageError
from vl3.training.events import EventLog, parse_event, read_events, settled_events


def test_events_are_appended_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "run" / "events.jsonl"
    EventLog(path).write("start", step=0)
    EventLog(path).write("end", steps=3)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"type": "start", "step": 0},
        {"type": "end", "steps": 3},
    ]


def test_half_a_line_of_a_killed_writer_spoils_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "met')
    EventLog(path).note("again")
    broken, note = path.read_text().splitlines()
    assert broken == '{"type": "met'
    assert json.loads(note)["text"] == "again"


def test_threads_write_each_event_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = EventLog(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(events.note, map(str, range(2000))))
    assert sorted(int(event["text"]) for event in read_events(path)) == list(range(2000))


def _limit_file_size(limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # or the process ends instead of seeing an error
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_events_wait_for_a_disk_with_space(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.jsonl"
    events = EventLog(path)
    events.write("start", resumed_from_step=0)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    _limit_file_size(path.stat().st_size + 20)  # half of the next event fits
    try:
        events.note("one")
        events.note("two")
    finally:
        _limit_file_size(former)
    assert [event["type"] for event in read_events(path)] == ["start"]
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "events wait in memory, training goes on"
    ]
    events.write("end", steps=3)
    assert [event.get("text", event["type"]) for event in read_events(path)] == ["start", "one", "two", "end"]


def test_a_disk_that_stays_full_ends_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl3.training.events.MAX_UNWRITTEN", 2)
    path = tmp_path / "events.jsonl"
    events = EventLog(path)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    _limit_file_size(0)
    try:
        events.note("one")
        with pytest.raises(StorageError, match=re.escape(str(path))):
            events.note("two")
    finally:
        _limit_file_size(former)


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    EventLog(None).write("start")
    assert list(tmp_path.iterdir()) == []


def test_reading_leaves_out_what_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path) == []
    path.write_bytes(b'{"type": "end"}\n{"type": "met\n\n[1]\n\xff\xfe\n{"type": "end", "steps": 3}\n{"ty')
    assert read_events(path) == [{"type": "end"}, {"type": "end", "steps": 3}]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\x00\xff\x00noise",
        b"[" * 100_000,
        b'{"type": ["start"]}',
        b'{"type": "start", "resumed_from_step": "/"}',
        b'{"type": "start", "resumed_from_step": -1}',
        b'{"type": "metrics", "step": 2, "time": 1.0, "values": {"loss": NaN}}',
        b'{"type": "metrics", "step": 2, "time": 1.0, "values": {"loss": "low"}}',
        b'{"type": "metrics", "step": 1e99, "time": 1.0, "values": {}}',
        b'{"type": "metrics", "step": 2, "time": true, "values": {}}',
        b'{"type": "progress", "done": 2, "total": null, "text": ""}',
        b'{"type": "note", "text": 7}',
        b'{"type": "note", "text": "\\ud800"}',
    ],
)
def test_noise_is_no_event(line: bytes) -> None:
    assert parse_event(line) is None


def test_steps_that_were_done_again_count_once() -> None:
    def attempt(resumed_from: int, *steps: int, number: int) -> list[dict[str, object]]:
        events: list[dict[str, object]] = [{"type": "start", "resumed_from_step": resumed_from, "attempt": number}]
        for step in steps:
            events.append({"type": "metrics", "step": step, "attempt": number})
            events.append({"type": "progress", "done": step, "total": 8})
        return events

    note = {"type": "note", "text": "stopped"}
    first, second = attempt(0, 2, 4, 6, number=1), attempt(4, 6, number=2)
    third = attempt(4, 6, 8, number=3)
    events = settled_events([*first, note, *second, *third, {"type": "end"}])
    metrics = [(event["step"], event["attempt"]) for event in events if event["type"] == "metrics"]
    assert metrics == [(2, 1), (4, 1), (6, 3), (8, 3)]
    assert [event["done"] for event in events if event["type"] == "progress"] == [2, 4, 6, 8]
    assert [event["type"] for event in events].count("start") == 3
    assert note in events
    assert events[-1] == {"type": "end"}


def test_a_stage_that_is_trained_anew_has_one_end() -> None:
    one = [{"type": "start", "resumed_from_step": 0}, {"type": "metrics", "step": 4}, {"type": "end"}]
    assert settled_events([*one, *one]) == [one[0], *one]
