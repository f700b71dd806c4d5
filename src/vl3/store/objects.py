"""One small interface to files and S3 objects."""

import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vl3.errors import StorageError
from vl3.store.manifest import FileEntry
from vl3.store.s3.connection import S3Connection, connection_from_environment
from vl3.store.s3.store import S3Store, require_length
from vl3.store.uris import check_key, scheme_of
from vl3.system.files import MAX_PLAIN_BYTES, read_plain, sibling, storage_errors
from vl3.system.uris import file_path


class Store(Protocol):
    """Objects below one root, by key (a relative path with forward slashes). ConfigError for a key outside the root."""

    @property
    def num_retries(self) -> int:
        """Requests that this process had to repeat so far, of all stores of the same service."""

    def put_file(self, path: Path, key: str) -> None:
        """Copy a local file into the store; a reader never sees an incomplete object."""

    def write(self, key: str, pieces: Sequence[bytes | memoryview]) -> FileEntry:
        """Store bytes from memory, one piece after the other, synced to the disk; a reader sees all or nothing."""

    def get_file(self, key: str, path: Path) -> None:
        """Copy an object to a local file. StorageError if it is missing."""

    def read(self, key: str) -> bytes | None:
        """All bytes of a small object; None if it is missing."""

    def read_range(self, key: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Bytes of an object from an offset. StorageError if there are fewer."""

    def exists(self, key: str) -> bool:
        """Whether the object exists."""

    def newest(self) -> "list[str]":
        """Keys directly below the root (not in folders), the latest first."""

    def list(self, prefix: str = "") -> "list[str]":
        """Keys that begin with prefix, sorted."""

    def delete(self, key: str) -> None:
        """Remove an object; no error if it is missing."""


def open_store(uri: str, s3: S3Connection | None = None) -> Store:
    """The store rooted at a file:// or s3:// URI; without `s3` the environment says how to reach the service.

    Raises:
        ConfigError: the URI has another scheme, or the endpoint in the environment is malformed.
        StorageError: no credentials are set.
    """
    if scheme_of(uri) == "file":
        return FileStore(file_path(uri))
    return open_s3(uri, s3)


def open_s3(uri: str, s3: S3Connection | None = None) -> S3Store:
    """The store rooted at an s3:// URI; see open_store."""
    return S3Store(uri, s3 or connection_from_environment())


def _is_replaceable(path: Path) -> bool:
    """Whether it is a thing that no store wrote and that a write replaces: a link, a pipe, a device, a huge file."""
    facts = path.lstat()
    is_plain = stat.S_ISREG(facts.st_mode) and facts.st_size <= MAX_PLAIN_BYTES
    return not is_plain and not stat.S_ISDIR(facts.st_mode)


class FileStore:
    """A folder as a store."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def num_retries(self) -> int:
        """See Store."""
        return 0

    def put_file(self, path: Path, key: str) -> None:
        """See Store."""
        target = self._path(key)
        temporary = sibling(target)
        with storage_errors(target, needed_bytes=path.stat().st_size):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def write(self, key: str, pieces: Sequence[bytes | memoryview]) -> FileEntry:
        """See Store."""
        target, digest = self._path(key), hashlib.sha256()
        temporary, size_bytes = sibling(target), sum(len(piece) for piece in pieces)
        with storage_errors(target, needed_bytes=size_bytes):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    for piece in pieces:
                        file.write(piece)
                        digest.update(piece)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        return FileEntry(size_bytes=size_bytes, sha256=digest.hexdigest())

    def get_file(self, key: str, path: Path) -> None:
        """See Store."""
        source = self._existing(key)
        with storage_errors(path, needed_bytes=source.stat().st_size):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)

    def read(self, key: str) -> bytes | None:
        """See Store."""
        path = self._path(key)
        try:
            return read_plain(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if _is_replaceable(path):
                return None
            raise StorageError(f"{path}: cannot be read ({error.strerror}). Correct its permissions.") from error

    def read_range(self, key: str, offset_bytes: int, length_bytes: int) -> bytes:
        """See Store."""
        path = self._existing(key)
        try:
            with path.open("rb") as file:
                file.seek(offset_bytes)
                data = file.read(length_bytes)
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be read ({error.strerror}). Correct its permissions, or check the disk."
            ) from error
        return require_length(data, length_bytes, str(path), offset_bytes)

    def exists(self, key: str) -> bool:
        """See Store."""
        return self._path(key).is_file()

    def newest(self) -> "list[str]":
        """See Store."""
        if not self.root.is_dir():
            return []
        with storage_errors(self.root), os.scandir(self.root) as entries:
            times = {entry.name: entry.stat().st_mtime_ns for entry in entries if entry.is_file()}
        return sorted(times, key=lambda name: times[name], reverse=True)

    def list(self, prefix: str = "") -> "list[str]":
        """See Store."""
        keys = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return sorted(key for key in keys if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """See Store."""
        path = self._path(key)
        with storage_errors(path):
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key, str(self.root))

    def _existing(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise StorageError(f"{path}: the object is missing. Run the step that makes it again.")
        return path
