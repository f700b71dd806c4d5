"""An object as a file that is read by ranges, so that its size costs no memory and no disk."""

import io
from typing import TYPE_CHECKING, BinaryIO

from vl3.errors import StorageError
from vl3.store.objects import open_s3
from vl3.store.s3.connection import S3Connection
from vl3.store.s3.store import S3Store
from vl3.store.uris import scheme_of
from vl3.system.uris import file_path

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

_AHEAD_BYTES = 4 << 20


def open_range(
    uri: str, offset_bytes: int = 0, length_bytes: int | None = None, *, s3: S3Connection | None = None
) -> BinaryIO:
    """A seekable file over some bytes of the file or object at a URI: `length_bytes` from `offset_bytes`, or the rest.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: there is no such object; and what the store raises while it is read.
    """
    if scheme_of(uri) == "file":
        return _local(uri, offset_bytes, length_bytes)
    parent, _, key = uri.rpartition("/")
    store = open_s3(parent, s3)
    if length_bytes is None:
        size_bytes = store.size(key)
        if size_bytes is None:
            raise StorageError(f"{uri}: the object is missing. Correct the URI, or upload it.")
        length_bytes = max(0, size_bytes - offset_bytes)
    return io.BufferedReader(_ObjectRange(store, key, offset_bytes, length_bytes), min(_AHEAD_BYTES, length_bytes + 1))


def _local(uri: str, offset_bytes: int, length_bytes: int | None) -> BinaryIO:
    path = file_path(uri)
    if not offset_bytes and length_bytes is None:
        return path.open("rb")
    file = path.open("rb", buffering=0)
    size_bytes = file.seek(0, io.SEEK_END)
    length = max(0, size_bytes - offset_bytes) if length_bytes is None else length_bytes
    return io.BufferedReader(_FileRange(file, offset_bytes, length))


class _Range(io.RawIOBase):
    """Bytes `start` to `start + length` of something: at 0 it reads from `start` on, and ends after `length`."""

    def __init__(self, start: int, length: int) -> None:
        super().__init__()
        self._start, self._length, self._at = start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer)[: max(0, self._length - self._at)]
        read = self._fill(view, self._start + self._at) if view else 0
        self._at += read
        return read

    def _fill(self, view: memoryview, at: int) -> int:
        raise NotImplementedError


class _ObjectRange(_Range):
    def __init__(self, store: S3Store, key: str, start: int, length: int) -> None:
        super().__init__(start, length)
        self._store, self._key = store, key

    def _fill(self, view: memoryview, at: int) -> int:
        view[:] = self._store.read_range(self._key, at, len(view))
        return len(view)


class _FileRange(_Range):
    def __init__(self, file: io.FileIO, start: int, length: int) -> None:
        super().__init__(start, length)
        self._file = file

    def _fill(self, view: memoryview, at: int) -> int:
        self._file.seek(at)
        return self._file.readinto(view) or 0

    def close(self) -> None:
        self._file.close()
        super().close()
