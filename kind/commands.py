"""Runs other programs and reports failures in one message; prints and times the steps."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from vl3.system.retry import Pauses, retry

TAIL_LINES = 15
_started = time.monotonic()
_print_lock = threading.Lock()


class KindError(Exception):
    """Why `up` or `down` cannot continue; the text says what to do."""


def say(message: str) -> None:
    """Print one line with the seconds since the start."""
    with _print_lock:
        print(f"{time.monotonic() - _started:6.1f} s  {message}", file=sys.stderr, flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print when a step starts and how long it took."""
    say(f"{name} ...")
    start = time.monotonic()
    yield
    say(f"{name}: done in {time.monotonic() - start:.1f} s")


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
    timeout: float | None = None,
) -> str:
    """Run a program and return what it printed.

    Raises:
        KindError: Its exit code is not 0, or it took longer than `timeout` seconds.
    """
    words = [str(word) for word in command]
    environment = None if env is None else {**os.environ, **env}
    try:
        result = subprocess.run(
            words, cwd=cwd, env=environment, input=text, timeout=timeout, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise KindError(f"`{short(words)}` did not finish within {timeout:.0f} s.") from None
    if result.returncode != 0:
        raise KindError(f"`{short(words)}` ended with code {result.returncode}:\n{tail(result.stdout + result.stderr)}")
    return result.stdout


def fetch(command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program that downloads, up to three times, because networks are unreliable.

    Raises:
        KindError: It failed each time.
    """
    return retry(
        lambda: run(command, cwd=cwd, env=env),
        may_pass=lambda error: isinstance(error, KindError),
        pauses=Pauses(first_seconds=10, longest_seconds=20),
        tries=3,
        note=lambda error, _, pause_seconds: say(f"{error}\n        retrying in {pause_seconds:.0f} s"),
    )


def succeeds(command: Sequence[str | Path], *, timeout: float = 60) -> bool:
    """Whether a program's exit code is 0; its output is dropped."""
    try:
        run(command, timeout=timeout)
    except (KindError, OSError):
        return False
    return True


def pipe(producer: Sequence[str | Path], consumer: Sequence[str | Path]) -> None:
    """Stream the output of one program into another, without a file between them.

    Raises:
        KindError: One of them failed.
    """
    source = [str(word) for word in producer]
    sink = [str(word) for word in consumer]
    with (
        subprocess.Popen(source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False) as sending,
        subprocess.Popen(
            sink, stdin=sending.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=False
        ) as receiving,
    ):
        assert sending.stdout is not None
        assert sending.stderr is not None
        sending.stdout.close()  # so that the sender notices when the receiver ends
        receiver_said = receiving.communicate()[1].decode(errors="replace")
        sender_said = sending.stderr.read().decode(errors="replace")
    if sending.returncode or receiving.returncode:
        codes = f"codes {sending.returncode} and {receiving.returncode}"
        raise KindError(f"`{short(source)} | {short(sink)}` ended with {codes}:\n{tail(sender_said + receiver_said)}")


def short(words: Sequence[str]) -> str:
    """A command on one line, cut to 160 characters."""
    line = " ".join(words)
    return line if len(line) <= 160 else line[:157] + "..."


def tail(text: str) -> str:
    """The last lines of a program's output."""
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-TAIL_LINES:])
