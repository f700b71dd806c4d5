"""The progress of a command: a bar on a terminal, a line now and then elsewhere, nothing for what is quick."""

import os
import re
import sys

import pytest

from tests.support.terminal import screens_of
from vl3.cli import progress
from vl3.cli.progress import shown_progress

PROGRAM = """
import time
from vl3.cli.progress import shown_progress
with shown_progress("samples") as report:
    for done in range(0, 41, 10):
        report(done, 40)
        time.sleep(0.3)
print("40 samples")
"""


def test_a_bar_on_a_terminal_goes_when_it_is_over() -> None:
    environment = {**os.environ, "TERM": "xterm"}
    screens, status = screens_of([sys.executable, "-c", PROGRAM], environment=environment)
    assert status == 0
    shown = "\n".join(line for screen in screens for line in screen)
    assert "samples" in shown
    assert re.search(r"[123]0 of 40 \(\d+ %\), 0:0\d left", shown)
    assert screens[-1] == ["40 samples"]
    assert all(len(screen) <= 2 for screen in screens)


def test_a_dumb_terminal_gets_no_bar() -> None:
    screens, _ = screens_of([sys.executable, "-c", PROGRAM], environment={**os.environ, "TERM": "dumb"})
    assert screens[-1] == ["40 samples"]


def test_elsewhere_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with shown_progress("samples") as report:
        for clock[0] in range(41):
            report(int(clock[0]), 40)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "samples: 16 of 40 (40 %)",
        "samples: 32 of 40 (80 %)",
        "samples: 40 of 40 (100 %) in 0:40",
    ]
    assert lines[0].endswith(" left")


def test_what_is_quick_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress("samples") as report:
        report(1, 2)
        report(2, 2)
    assert capsys.readouterr() == ("", "")
