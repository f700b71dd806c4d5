"""Samples of an object store on the local disk: shared by the processes of a machine, never more than a limit.

A file is named by the digest of its content, which every reader checks, so that a damaged one is only read again.
"""

import contextlib
import fcntl
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

_TOTAL = ".total"
_KEPT_SHARE = 0.75
"""What is left after a clean-up, so that not every new file needs one."""


class SampleCache:
    """A folder of samples. The oldest in use are removed when there is no room."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Use a folder that only this user can write to; `limit_bytes` bounds what all processes together keep."""
        self._folder, self._limit_bytes = folder, limit_bytes

    def open(self, sha256: str) -> BinaryIO | None:
        """The cached content with this digest, if there is one; it stays readable when it is removed meanwhile."""
        try:
            file = (self._folder / sha256).open("rb")
            os.utime(file.fileno())  # used now: it is among the last to be removed
        except OSError:
            return None
        return file

    def add(self, sha256: str, length_bytes: int, write: Callable[[BinaryIO], None]) -> BinaryIO:
        """A file with a sample's content, which `write` writes; cached if the disk and the limit have room for it."""
        name, file = self._begin()
        try:
            write(file)
            file.flush()
            file.seek(0)
            if name is not None and length_bytes <= self._limit_bytes * _KEPT_SHARE:
                self._keep(name, sha256, length_bytes)
        except BaseException:
            file.close()
            raise
        finally:
            if name is not None:
                name.unlink(missing_ok=True)
        return file

    def drop(self, sha256: str) -> None:
        """Remove a file whose content turned out to be another."""
        (self._folder / sha256).unlink(missing_ok=True)

    def _begin(self) -> tuple[Path | None, BinaryIO]:
        """A file to write to, in the folder; one without a name elsewhere if the folder cannot be written to."""
        try:
            descriptor, name = tempfile.mkstemp(dir=self._folder, prefix="writing-")
            return Path(name), os.fdopen(descriptor, "w+b")
        except OSError as error:
            log.warning("%s: nothing is cached (%s)", self._folder, error)
            return None, tempfile.TemporaryFile()

    def _keep(self, written: Path, sha256: str, length_bytes: int) -> None:
        """Give the file its name if the total stays within the limit; the total is in the lock's file.

        A limit of 100 and a total of 95: a file of 10 does not fit, so the oldest go until 75 are left, and the total
        is 85.
        """
        with contextlib.suppress(OSError), self._total() as lock:
            text = os.pread(lock, 32, 0)
            total = int(text) if text.isdigit() else self._limit_bytes
            if total + length_bytes > self._limit_bytes:
                total = self._make_room(int(self._limit_bytes * _KEPT_SHARE), besides=written)
            if total + length_bytes <= self._limit_bytes:
                written.rename(self._folder / sha256)
                total += length_bytes
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d" % total, 0)

    @contextlib.contextmanager
    def _total(self) -> Iterator[int]:
        lock = os.open(self._folder / _TOTAL, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            os.close(lock)

    def _make_room(self, wanted_bytes: int, *, besides: Path) -> int:
        """Remove the files that were not used for longest, also what killed writers left; returns the bytes left."""
        with os.scandir(self._folder) as entries:
            files = [(entry.stat(), entry.path) for entry in entries if entry.name not in (_TOTAL, besides.name)]
        left = sum(facts.st_size for facts, _ in files)
        for facts, path in sorted(files, key=lambda one: one[0].st_mtime_ns):
            if left <= wanted_bytes:
                break
            Path(path).unlink()
            left -= facts.st_size
        return left
