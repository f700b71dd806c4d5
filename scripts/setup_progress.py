"""Progress of set-up on stdout: a line that is redrawn on a terminal, otherwise a line now and then.

Only the standard library is there when set-up begins, so this cannot use rich.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from vl3.system.progress import LINE_EVERY_SECONDS, TimeLeft, is_live, progress_words

_CLEAR_LINE = "\r\033[K"


class SetupProgress:
    """Shows `[setup] downloading packages: 120 of 207 (57 %), 1:05 left`."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._pace = TimeLeft()
        self._is_live = is_live(sys.stdout)
        self._shown_at = time.monotonic()
        self._shown = (-1, -1)

    def report(self, done: int, total: int) -> None:
        """Show how much is done: at once on a terminal, otherwise at most every 15 s and at the end."""
        left_seconds = self._pace.left_seconds(done, total)
        text = f"[setup] {self._title}: {progress_words(done, total, left_seconds)}"
        is_due = (done >= total and self._shown != (done, total)) or (
            time.monotonic() - self._shown_at > LINE_EVERY_SECONDS
        )
        if self._is_live:
            print(f"{_CLEAR_LINE}{text[:79]}", end="", flush=True)
        elif is_due:
            print(text, flush=True)
            self._shown_at, self._shown = time.monotonic(), (done, total)

    def close(self) -> None:
        """End the line that was redrawn."""
        if self._is_live:
            print(flush=True)
