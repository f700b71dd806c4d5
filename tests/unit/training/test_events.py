"""The event file."""

import json
from pathlib import Path

from vl3.training.events import EventLog


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


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    EventLog(None).write("start")
    assert list(tmp_path.iterdir()) == []
