"""Time left from the work's own speed, and how progress is said."""

import io

import pytest

from vl3.system.progress import TimeLeft, duration_words, is_live, percent, progress_words


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_time_left_is_measured_from_the_first_report() -> None:
    clock = Clock()
    pace = TimeLeft(clock)
    assert pace.left_seconds(100, 200) is None  # resumed: what was done before says nothing
    clock.seconds = 20
    assert pace.left_seconds(110, 200) == 180
    assert pace.left_seconds(200, 200) == 0


@pytest.mark.parametrize("report", [(0, 300), (5, 200)])
def test_a_new_total_or_a_step_back_begins_again(report: tuple[int, int]) -> None:
    clock = Clock()
    pace = TimeLeft(clock)
    pace.left_seconds(0, 200)
    clock.seconds = 10
    assert pace.left_seconds(10, 200) == 190
    clock.seconds = 1000
    assert pace.left_seconds(*report) is None
    clock.seconds = 1001
    assert pace.left_seconds(report[0] + 1, report[1]) == report[1] - report[0] - 1


def test_a_clock_that_stands_still_gives_no_estimate() -> None:
    pace = TimeLeft(Clock())
    pace.left_seconds(0, 10)
    assert pace.left_seconds(5, 10) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((120, 200, 65.2), "120 of 200 (60 %), 1:05 left"),
        ((120, 200, None), "120 of 200 (60 %)"),
        ((200, 200, 0.0), "200 of 200 (100 %)"),
        ((199, 200, 0.4), "199 of 200 (99 %), 0:00 left"),
        ((3, 0, None), "3"),
        ((0, 0, None), "0"),
    ],
)
def test_progress_words(arguments: tuple[int, int, float | None], words: str) -> None:
    assert progress_words(*arguments) == words


def test_percent_is_100_only_at_the_end() -> None:
    assert [percent(done, 1000) for done in (0, 9, 10, 999, 1000, 2000)] == [0, 0, 1, 99, 100, 100]
    assert percent(1, 0) == 0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0:00"), (9.4, "0:09"), (750, "12:30"), (3723, "1:02:03"), (4e5, "4 days")]
)
def test_duration_words(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("term", "expected"), [("xterm", True), ("dumb", False), ("unknown", False), ("", False), (None, False)]
)
def test_a_dumb_terminal_is_not_live(term: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    assert is_live(Terminal()) is expected
    assert is_live(io.StringIO()) is False
