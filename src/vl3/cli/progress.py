"""Shows the progress of a command on stderr: a bar on a terminal, otherwise a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vl3.system.progress import LINE_EVERY_SECONDS, TimeLeft, duration_words, is_live, progress_words

Report = Callable[[int, int], None]
"""Called with (done, total)."""


@contextmanager
def shown_progress(title: str) -> Iterator[Report]:
    """Yields the function to report progress to; nothing is shown before its first call."""
    if not is_live(sys.stderr):
        yield _lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
    pace = TimeLeft()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, words="", visible=False)

        def report(done: int, total: int) -> None:
            words = progress_words(done, total, pace.left_seconds(done, total))
            bar.update(task, completed=done, total=total, words=words, visible=True)

        yield report


def _lines(title: str) -> Report:
    started = shown_at = time.monotonic()
    pace = TimeLeft()

    def report(done: int, total: int) -> None:
        nonlocal shown_at
        left_seconds, now = pace.left_seconds(done, total), time.monotonic()
        is_over = done >= total and shown_at > started  # whoever read of its middle also reads of its end
        if is_over or now - shown_at > LINE_EVERY_SECONDS:
            spent = f" in {duration_words(now - started)}" if is_over else ""
            print(f"{title}: {progress_words(done, total, left_seconds)}{spent}", file=sys.stderr, flush=True)
            shown_at = now

    return report
