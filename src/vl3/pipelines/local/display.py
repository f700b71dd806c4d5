"""Shows a run's progress: a live table on a terminal, otherwise one line per event."""

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from vl3.errors import Vl3Error

if TYPE_CHECKING:
    from rich.table import Table

_MARKS = {"waiting": "·", "running": "▶", "done": "✓", "reused": "↺", "failed": "✗", "interrupted": "■"}
_STYLES = {"running": "bold cyan", "done": "green", "reused": "blue", "failed": "bold red", "interrupted": "yellow"}
_PROGRESS_EVERY_SECONDS = 15.0


class Display(Protocol):
    """Shows the states of the tasks."""

    def update(self, tasks: list[dict[str, Any]], statuses: dict[str, dict[str, Any]]) -> None:
        """Show the tasks' records and status files."""

    def close(self) -> None:
        """Restore the terminal."""


def open_display(title: str) -> Display:
    """A live table if stdout is a terminal, plain lines otherwise."""
    return LiveDisplay(title) if sys.stdout.isatty() else PlainDisplay(title)


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
            elif state == "running" and time.monotonic() - self._shown_at > _PROGRESS_EVERY_SECONDS:
                self._print(name, progress_text(statuses.get(name, {})) or f"running ({task['seconds']:.0f} s)")

    def close(self) -> None:
        """Do nothing: there is nothing to restore."""

    def _print(self, name: str, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {name}: {text}", flush=True)
        self._shown_at = time.monotonic()


class LiveDisplay:
    """A table that is redrawn several times a second."""

    def __init__(self, title: str) -> None:
        from rich.live import Live

        self._title = title
        self._live = Live(refresh_per_second=4)
        self._live.start()

    def update(self, tasks: list[dict[str, Any]], statuses: dict[str, dict[str, Any]]) -> None:
        """Draw the table."""
        self._live.update(self._table(tasks, statuses))

    def close(self) -> None:
        """Stop redrawing; the last table remains."""
        self._live.stop()

    def _table(self, tasks: list[dict[str, Any]], statuses: dict[str, dict[str, Any]]) -> "Table":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self._title, title_justify="left", box=None, padding=(0, 1))
        for column in ("", "task", "seconds", "progress", ""):
            table.add_column(column, justify="right" if column == "seconds" else "left")
        for task in tasks:
            progress = statuses.get(task["name"], {}).get("progress") if task["state"] == "running" else None
            table.add_row(
                _MARKS.get(task["state"], "?"),
                task["name"],
                "" if task["seconds"] is None else f"{task['seconds']:.1f}",
                ProgressBar(total=progress["total"], completed=progress["done"], width=30) if progress else "",
                Text(progress["text"] if progress else "" if task["state"] == "waiting" else task["state"]),
                style=_STYLES.get(task["state"], "dim"),
            )
        return table


def tell(error: Vl3Error) -> None:
    """Print an error on stderr with its first line last, because the last line of stderr is the message."""
    headline, *details = str(error).splitlines() or [""]
    for line in [*details, f"{type(error).__name__}: {headline}"]:
        print(line, file=sys.stderr)


def progress_text(status: dict[str, Any]) -> str:
    """`120 of 200, loss 0.43`, or an empty text if the step has reported no progress."""
    progress = status.get("progress")
    return f"{progress['done']} of {progress['total']}, {progress['text']}" if progress else ""
