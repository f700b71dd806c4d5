"""Writing to disk so that a reader sees the old content or the new, and errors say what to do."""

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vl3.errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def storage_errors(path: Path, *, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn the operating system's errors on writing `path` into StorageError.

    Raises:
        StorageError: the disk is full, permission is missing, or another I/O error; with the path and a remedy.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(_explain(error, path, needed_bytes)) from error


@contextmanager
def resource_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or missing permission, met by any library while working on `path`, into StorageError.

    Raises:
        StorageError: as storage_errors; other errors of the operating system pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*_FULL, *_FORBIDDEN):
            raise
        raise StorageError(_explain(error, path, None)) from error


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it; parents are made.

    Raises:
        StorageError: see storage_errors; a former file is then left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with storage_errors(path, needed_bytes=len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; see atomic_write_bytes."""
    atomic_write_bytes(path, text.encode())


def atomic_write_json(path: Path, data: Any) -> None:
    """Write data as indented JSON atomically; see atomic_write_bytes."""
    atomic_write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill under the name `<target>.partial`, which gets its name when the block ends without an error.

    After an error nothing is left; after a kill only the partial folder, which the next attempt removes.

    Raises:
        StorageError: the target exists, another process fills it, or the disk is full or closed to us.
    """
    partial = target.with_name(f"{target.name}.partial")
    with storage_errors(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise StorageError(
                f"{target} exists and is not empty. It is never overwritten: remove it or choose another folder."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _take_partial(partial)
        try:
            yield partial
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(lock)


def _take_partial(partial: Path) -> int:
    """An empty partial folder, locked by the returned descriptor for as long as this process lives."""
    partial.mkdir(exist_ok=True)
    lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in partial.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except BlockingIOError as error:
        os.close(lock)
        raise StorageError(
            f"{partial} is being written by another process. Wait for it or choose another folder."
        ) from error
    return lock


def require_space(folder: Path, needed_bytes: int, *, purpose: str) -> None:
    """Raise StorageError unless the file system of `folder` has `needed_bytes` free."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise StorageError(
            f"{folder}: {free_bytes / 1e6:.0f} MB are free and {needed_bytes / 1e6:.0f} MB are needed {purpose}. "
            "Free space there or choose another folder."
        )


def _explain(error: OSError, path: Path, needed_bytes: int | None) -> str:
    where = error.filename or path
    if error.errno in _FULL:
        size = "" if needed_bytes is None else f" ({needed_bytes} bytes were to be written)"
        return f"{where}: the disk is full{size}. Nothing half-written is kept. Free space there and run again."
    if error.errno in _FORBIDDEN:
        reason = os.strerror(error.errno or 0)
        return f"{where}: no permission to write ({reason}). Correct the folder's owner or choose another folder."
    return (
        f"{where}: cannot be written ({error.strerror or error}). Check the path and the file system, then run again."
    )
