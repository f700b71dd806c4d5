"""What a run shows: plain lines, and on a terminal of any height a table with the row at work."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.terminal import screens_of
from vl3.pipelines.local import display
from vl3.pipelines.local.display import PlainDisplay, RunView, progress_text, visible_rows

NAMES = [
    "check-prerequisites",
    "validate-data",
    "train-vision-adaptation",
    "train-alignment",
    "train-multitask",
    "train-video",
    "evaluate",
    "promote",
    "report",
    "finish",
]


def run_at(current: int) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Tasks and statuses of a run in which one task is at work."""
    states = [
        "done" if index < current else "running" if index == current else "waiting" for index in range(len(NAMES))
    ]
    tasks = [
        {"name": name, "state": state, "seconds": None if state == "waiting" else 75.0, "reused": False}
        for name, state in zip(NAMES, states, strict=True)
    ]
    progress = {"done": 1234, "total": 2000, "left_seconds": 3723.0, "text": "loss 0.432 and a long remark on it"}
    return tasks, {NAMES[current]: {"progress": progress}}


def drawn(tasks: list[dict[str, Any]], statuses: dict[str, Any], *, height: int, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    view = RunView("vl3 run /a/very/long/folder/that/does/not/fit/into/one/line/of/this/terminal/runs/tiny (tiny-1)")
    view.tasks, view.statuses = tasks, statuses
    console.print(view)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("current", range(10))
@pytest.mark.parametrize("height", [3, 4, 8, 10, 12, 24])
def test_the_row_at_work_is_shown_at_any_height(current: int, height: int) -> None:
    lines = drawn(*run_at(current), height=height)
    assert len(lines) < height or height == 3
    (row,) = [line for line in lines if line.startswith("▶")]
    assert row.split()[1:3] == [NAMES[current], "1:15"]
    assert "1234 of 2000 (61 %), 1:02:03 left" in row
    assert lines[0].startswith(f"{current} of 10 ({10 * current} %): vl3 run ")
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_no_row_takes_two_lines(width: int) -> None:
    lines = drawn(*run_at(5), height=8, width=width)
    assert len(lines) == 7
    assert all(len(line) <= width for line in lines)
    assert lines[-1].startswith("  ... 3 above and")


def test_a_wide_terminal_has_a_bar() -> None:
    (row,) = [line for line in drawn(*run_at(3), height=24, width=120) if line.startswith("▶")]
    assert "━━━━━━╌╌╌╌" in row


def test_all_rows_are_shown_where_they_fit() -> None:
    lines = drawn(*run_at(3), height=24)
    assert [line.split()[1] for line in lines[1:]] == NAMES


@pytest.mark.parametrize(
    ("states", "room", "rows"),
    [
        ("ddddd>wwww", 4, range(3, 7)),
        (">wwwwwwwww", 4, range(4)),
        ("ddddddddd>", 4, range(6, 10)),
        ("ddddxwwwww", 3, range(3, 6)),
        ("wwwwwwwwww", 1, range(1)),
        ("dddd>", 5, range(5)),
        ("", 3, range(0)),
    ],
)
def test_the_rows_that_fit(states: str, room: int, rows: range) -> None:
    names = {"d": "done", ">": "running", "w": "waiting", "x": "failed"}
    assert visible_rows([names[state] for state in states], room) == rows


def test_progress_text() -> None:
    progress = {"done": 3, "total": 9, "left_seconds": 61.0, "text": "loss 0.4"}
    assert progress_text(progress) == "3 of 9 (33 %), 1:01 left, loss 0.4"
    assert progress_text({"done": 3, "total": 9, "text": ""}) == "3 of 9 (33 %)"


def test_plain_display_says_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    shown = PlainDisplay("title")
    task = {"name": "a", "state": "running", "seconds": 0.0}
    shown.update([task], {})
    shown.update([task], {})
    shown.update([task | {"state": "done", "seconds": 1.25}], {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "title"
    assert [line[9:] for line in lines[1:]] == ["a: started", "a: done (1.2 s)"]


def test_plain_display_says_how_far_it_is_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    shown = PlainDisplay("title")
    task = {"name": "a", "state": "running", "seconds": 0.0}
    progress = {"done": 1, "total": 4, "left_seconds": 90.0, "text": "x"}
    for clock[0] in range(40):
        shown.update([task | {"seconds": clock[0]}], {"a": {"progress": progress}})
    lines = [line[9:] for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == ["a: started", *["a: 1 of 4 (25 %), 1:30 left, x"] * 2]


PROGRAM = """
import json, sys, time
from vl3.pipelines.local.display import open_display
display = open_display("vl3 run /somewhere (tiny-1)")
for tasks, statuses in json.load(open(sys.argv[1])):
    display.update(tasks, statuses)
    time.sleep(0.4)
display.close()
print("succeeded in 9 s")
"""


def on_terminal(tmp_path: Path, term: str) -> tuple[list[list[str]], int]:
    """What a terminal of 8 lines showed of a run, task after task."""
    (tmp_path / "steps.json").write_text(json.dumps([run_at(current) for current in range(10)]))
    environment = {**os.environ, "TERM": term}
    return screens_of([sys.executable, "-c", PROGRAM, str(tmp_path / "steps.json")], environment=environment)


def test_on_a_terminal_of_8_lines_the_row_at_work_is_always_there(tmp_path: Path) -> None:
    screens, status = on_terminal(tmp_path, "xterm")
    assert status == 0
    at_work = [[line for line in screen if line.startswith("▶")] for screen in screens if len(screen) == 7]
    assert all(len(rows) == 1 for rows in at_work)
    seen = list(dict.fromkeys(row.split()[1] for (row,) in at_work))
    assert seen == [name for name in NAMES if name in seen]  # a busy reader may get several screens in one piece
    assert seen[-1] == "finish"
    assert screens[-1][-1] == "succeeded in 9 s"
    assert [line.split()[1] for line in screens[-1][:-1]] == NAMES[-6:]  # the whole table stays, and has scrolled


def test_on_a_dumb_terminal_there_are_lines(tmp_path: Path) -> None:
    screens, status = on_terminal(tmp_path, "dumb")
    assert status == 0
    assert screens[-1][-2:] == [screens[-1][-2], "succeeded in 9 s"]
    assert screens[-1][-2].endswith("finish: started")
    assert not any("▶" in line for screen in screens for line in screen)
