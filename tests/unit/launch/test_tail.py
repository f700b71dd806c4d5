"""Reading files that grow."""

from pathlib import Path

from vl3.launch.tail import EventTail, last_lines


def test_tail_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "end", "steps": 1}\n')
    tail = EventTail(path)
    with path.open("a") as file:
        file.write('{"type": "end", "steps": 2}\n{"type"')
        file.flush()
        assert list(tail.read()) == [{"type": "end", "steps": 2}]
        file.write(': "end"}\n')
        file.flush()
    assert list(tail.read()) == [{"type": "end"}]
    assert list(tail.read()) == []


def test_tail_passes_over_what_is_no_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    assert list(tail.read()) == []
    path.write_text('{"half\n\n[1]\n{"type": "end"}\n')
    assert list(tail.read()) == [{"type": "end"}]


def test_last_lines_are_those_of_this_launch(tmp_path: Path) -> None:
    path = tmp_path / "stage.log"
    path.write_text("before\n")
    offset = path.stat().st_size
    with path.open("a") as file:
        file.write("one\n\ntwo\nthree\n")
    assert last_lines(path, offset, count=2) == ["two", "three"]
    assert last_lines(tmp_path / "missing.log", 0, count=2) == []
