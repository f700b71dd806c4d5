"""Locks between the processes of a machine: the kernel releases the file when its holder ends, whatever the cause.

The file's content names the holder. It is never trusted, because any process can have written it.
"""

import contextlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.system.clock import now_to_the_second
from vl3.system.files import storage_errors

_POLL_SECONDS = 0.05
_MAX_BYTES = 64 * 1024
_MAX_CHARACTERS = 4096
_NAME = re.compile(r"[a-z_]{1,40}")


class HeldError(Exception):
    """Another process holds the lock.

    Attributes:
        path: the lock's file.
        holder: what the file says about its holder.
    """

    def __init__(self, path: Path, holder: "Holder") -> None:
        super().__init__(f"{path} is held by {holder}")
        self.path = path
        self.holder = holder


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """What a lock's file says about its holder, who may have been killed since."""

    pid: int | None = None
    """Process id; None if the file has none."""
    facts: Mapping[str, str]
    """`host`, `since`, and what else the holder wrote. Only known to be printable."""

    def __str__(self) -> str:
        if self.pid is None:
            return "an unknown process"
        parts = [("", str(self.pid)), ("on ", self.facts.get("host")), ("since ", self.facts.get("since"))]
        return "process " + " ".join(f"{word}{value}" for word, value in parts if value)


@contextlib.contextmanager
def hold(
    path: Path,
    *,
    wait_seconds: float | None = None,
    on_wait: Callable[[], object] = lambda: None,
    is_kept: bool = True,
    **facts: str,
) -> Iterator[Holder]:
    """Hold the lock of a file.

    Args:
        path: the file; parent folders are created.
        wait_seconds: how long to wait for another holder; None waits until it ends.
        on_wait: called once before waiting for another holder.
        is_kept: leave the file, empty, for the next holder; otherwise it is removed.
        facts: what the file says about this holder in addition to `pid`, `host` and `since`.

    Yields:
        The previous holder, if it was killed and so left its content in the file.

    Raises:
        HeldError: another process still holds it after the wait.
        StorageError: the file cannot be opened or written.
    """
    from filelock import FileLock, Timeout  # takes 40 ms, which only commands that lock should pay

    # thread_local: another thread may release it. fallback_to_soft: a soft lock, a file that exists, outlives a kill.
    lock = FileLock(path, thread_local=False, fallback_to_soft=False, poll_interval=_POLL_SECONDS)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            try:
                if wait_seconds != 0:
                    on_wait()
                lock.acquire(timeout=-1 if wait_seconds is None else wait_seconds)
            except Timeout as error:
                raise HeldError(path, read_holder(path)) from error
    try:
        former = read_holder(path)
        own = {"pid": os.getpid(), "host": socket.gethostname(), "since": now_to_the_second(), **facts}
        with storage_errors(path):
            _write(path, json.dumps(own).encode())
        yield former
    finally:
        with contextlib.suppress(OSError):  # the work is done, and stale content does no harm
            _write(path, b"") if is_kept else path.unlink()
        lock.release()


def read_holder(path: Path) -> Holder:
    """The holder that a lock's file names; an empty one if the file is missing or has other content."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = json.loads(os.read(descriptor, _MAX_BYTES) or b"{}")
        finally:
            os.close(descriptor)
    except (OSError, ValueError, RecursionError):
        return Holder(facts={})
    return _parse(data) if isinstance(data, dict) else Holder(facts={})


def _parse(data: dict[str, Any]) -> Holder:
    pid = data.pop("pid", None)
    is_pid = isinstance(pid, int) and not isinstance(pid, bool) and 0 < pid < 2**31
    facts = {name: text for name, text in data.items() if _NAME.fullmatch(name) and _can_be_shown(text)}
    return Holder(pid=pid if is_pid else None, facts=facts)


def _can_be_shown(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= _MAX_CHARACTERS and text.isprintable()


def _write(path: Path, data: bytes) -> None:
    """Replace the content in place: the lock belongs to this file, and a renamed one would not be locked."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
