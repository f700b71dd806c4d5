"""Writes files so that a reader sees either the old content or the new, with errors that say what to do."""

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vl3.errors import StorageError
from vl3.system.documents import parse_object

_FULL = (errno.ENOSPC, errno.EDQUOT)
MAX_PLAIN_BYTES = 256 * 2**20
"""More than any record, manifest or list of events has."""
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
    """Turn a full disk or a missing permission, in any library that works on `path`, into StorageError.

    Raises:
        StorageError: as storage_errors; other errors of the operating system are not changed.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*_FULL, *_FORBIDDEN):
            raise
        raise StorageError(_explain(error, path, None)) from error


def sibling(path: Path) -> Path:
    """A unique name next to `path`, starting with a dot, for a file that is then renamed to `path`."""
    return path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it; parent folders are created.

    Raises:
        StorageError: see storage_errors; an existing file is then unchanged.
    """
    temporary = sibling(path)
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


def read_plain(path: Path) -> bytes:
    """The bytes of a small file that must be one: not a link, a pipe or a device, and no larger than a record can be.

    Reading a pipe would wait for ever, /dev/zero would fill the memory, and a link may lead to somebody else's file.

    Raises:
        OSError: it is missing, cannot be read, or is something else.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        if facts.st_size > MAX_PLAIN_BYTES:
            raise OSError(errno.EFBIG, f"it has {facts.st_size} bytes, more than any that is written here", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_PLAIN_BYTES)
    finally:
        os.close(descriptor)


def read_record(path: Path) -> dict[str, Any]:
    """An object of a JSON file that another process keeps; empty where it is missing, not whole or something else."""
    try:
        return parse_object(read_plain(path))
    except (OSError, ValueError):
        return {}


def open_to_append(path: Path) -> int:
    """A descriptor that appends to a file of the run, which is created if it is missing; a link is replaced.

    Raises:
        StorageError: it cannot be opened.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def require_space(folder: Path, needed_bytes: int, *, purpose: str) -> None:
    """Raise StorageError unless the file system of `folder` has `needed_bytes` free."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise StorageError(
            f"{folder}: {free_bytes / 1e6:.0f} MB are free and {needed_bytes / 1e6:.0f} MB are needed {purpose}. "
            "Free space there or use another folder."
        )


def _explain(error: OSError, path: Path, needed_bytes: int | None) -> str:
    where = error.filename2 or error.filename or path  # of a rename, the target and not the temporary name
    if error.errno in _FULL:
        size = "" if needed_bytes is None else f" ({needed_bytes} bytes were to be written)"
        return f"{where}: the disk is full{size}. Incomplete files are removed. Free space there and run again."
    if error.errno in _FORBIDDEN:
        reason = os.strerror(error.errno or 0)
        return f"{where}: no permission to write ({reason}). Correct the folder's owner or use another folder."
    return (
        f"{where}: cannot be written ({error.strerror or error}). Check the path and the file system, then run again."
    )
