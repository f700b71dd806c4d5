"""Shows a run's progress: a live table on a terminal, otherwise one line per event."""

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from vl3.errors import Vl3Error
from vl3.system.progress import LINE_EVERY_SECONDS, duration_words, is_live, percent, progress_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions
    from rich.text import Text

_MARKS = {"waiting": "·", "running": "▶", "done": "✓", "reused": "↺", "failed": "✗", "interrupted": "■"}
_STYLES = {"running": "bold cyan", "done": "green", "reused": "blue", "failed": "bold red", "interrupted": "yellow"}
_BAR_CELLS = 10
_WIDE_CELLS = 100
"""A terminal this wide has room for a bar beside the words."""


class Display(Protocol):
    """Shows the states of the tasks."""

    def update(self, tasks: list[dict[str, Any]], statuses: dict[str, dict[str, Any]]) -> None:
        """Show the tasks' records and status files."""

    def close(self) -> None:
        """Restore the terminal."""


def open_display(title: str) -> Display:
    """A live table if stdout is a terminal that can redraw, plain lines otherwise."""
    return LiveDisplay(title) if is_live(sys.stdout) else PlainDisplay(title)


class PlainDisplay:
    """One line per event; progress at most every 15 s."""

    def __init__(self, title: str) -> None:
        self._states: dict[str, str] = {}
        self._shown_at = time.monotonic()
        print(title, flush=True)

    def update(self, tasks: list[dict[str, Any]], statuses: dict[str, dict[str, Any]]) -> None:
        """Print what changed."""
        for task in tasks:
            name, state = task["name"], task["state"]
            if self._states.get(name, "waiting") != state:
                self._print(name, "started" if state == "running" else f"{state} ({task['seconds']:.1f} s)")
                self._states[name] = state
            elif state == "running" and time.monotonic() - self._shown_at > LINE_EVERY_SECONDS:
                progress = statuses.get(name, {}).get("progress")
                self._print(name, progress_text(progress) if progress else f"running ({task['seconds']:.0f} s)")

    def close(self) -> None:
        """Do nothing: there is nothing to restore."""

    def _print(self, name: str, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {name}: {text}", flush=True)
        self._shown_at = time.monotonic()


class LiveDisplay:
    """A table that is redrawn several times a second."""

    def __init__(self, title: str) -> None:
        from rich.live import Live

        self._view = RunView(title)
        self._live = Live(self._view, refresh_per_second=4)
        self._live.start()

    def update(self, tasks: list[dict[str, Any]], statuses: dict[str, dict[str, Any]]) -> None:
        """Draw the table."""
        self._view.tasks, self._view.statuses = tasks, statuses

    def close(self) -> None:
        """Draw the whole table once, and stop redrawing."""
        self._view.is_whole = True
        self._live.vertical_overflow = "visible"
        self._live.stop()


class RunView:
    """The table of a run as rich draws it: at most as high as the terminal, always with the row at work.

    Attributes:
        tasks: the tasks' records.
        statuses: their status files.
        is_whole: whether to draw every row, however high the terminal is.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.tasks: list[dict[str, Any]] = []
        self.statuses: dict[str, dict[str, Any]] = {}
        self.is_whole = False

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        """The title, the rows around the one at work, and how many are left out: one line each."""
        from rich.text import Text

        def line(text: str, style: str = "") -> Text:
            return Text(text, style=style, overflow="ellipsis", no_wrap=True)

        tasks = list(self.tasks)
        states = [task["state"] for task in tasks]
        room = len(tasks) if self.is_whole else max(1, console.size.height - 3)  # title, what is left out, cursor
        shown = visible_rows(states, room)
        ended = sum(state not in ("waiting", "running") for state in states)
        done = f"{progress_words(ended, len(tasks), None)}: " if tasks else ""
        yield line(f"{done}{self.title}")
        cells = max((len(task["name"]) for task in tasks), default=0)
        for task in (tasks[index] for index in shown):
            row = self._row(task, cells, has_bar=options.max_width >= _WIDE_CELLS)
            yield line(row, _STYLES.get(task["state"], "dim"))
        if len(shown) < len(tasks):
            yield line(_left_out(states, shown), "dim")

    def _row(self, task: dict[str, Any], cells: int, *, has_bar: bool) -> str:
        """`▶ train-video    1:15  1234 of 2000 (61 %), 12:30 left, loss 0.432`."""
        state = task["state"]
        progress = self.statuses.get(task["name"], {}).get("progress") if state == "running" else None
        text = progress_text(progress) if progress else "" if state == "waiting" else state
        bar = f"{_bar(progress):{_BAR_CELLS}}  " if has_bar else ""
        spent = "" if task["seconds"] is None else duration_words(task["seconds"])
        return f"{_MARKS.get(state, '?')} {task['name']:{cells}}  {spent:>7}  {bar}{text}"


def visible_rows(states: list[str], room: int) -> range:
    """The rows of a table that fit: all, or those around the first that runs, else the last that has ended.

    Of ten rows of which the sixth runs, four fit: the fourth to the seventh (3 to 6, counted from 0).
    """
    if len(states) <= room:
        return range(len(states))
    begun = [index for index, state in enumerate(states) if state != "waiting"]
    current = states.index("running") if "running" in states else begun[-1] if begun else 0
    first = min(max(0, current - room // 2), len(states) - room)
    return range(first, first + room)


def _left_out(states: list[str], shown: range) -> str:
    above, below = shown.start, len(states) - shown.stop
    parts = [f"{above} above" if above else "", f"{below} below" if below else ""]
    return f"  ... {' and '.join(part for part in parts if part)}"


def _bar(progress: dict[str, Any] | None) -> str:
    if not progress or progress["total"] <= 0:
        return ""
    filled = _BAR_CELLS * percent(progress["done"], progress["total"]) // 100
    return "━" * filled + "╌" * (_BAR_CELLS - filled)


def tell(error: Vl3Error) -> None:
    """Print an error on stderr with its first line last, because the last line of stderr is the message."""
    headline, *details = str(error).splitlines() or [""]
    for line in [*details, f"{type(error).__name__}: {headline}"]:
        print(line, file=sys.stderr)


def progress_text(progress: dict[str, Any]) -> str:
    """`120 of 200 (60 %), 1:05 left, loss 0.43`."""
    words = progress_words(progress["done"], progress["total"], progress.get("left_seconds"))
    return f"{words}, {progress['text']}" if progress["text"] else words
