"""Media files: their paths, relative to the data folder and never outside it, and their bytes.

A small file is read at once. A large one is named by its place (`FileRange`, `StoreRange`) and read as it is decoded,
so that the memory of a process does not grow with the size of a video.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from vl3.data.sample.problems import ProblemKind, SampleProblem, shown

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

    from vl3.store.objects import Store

WHOLE_BYTES = 16 << 20
"""Files up to this size are read at once."""
MAX_BYTES = (8 << 30) - 1
"""A member of a tar shard cannot be larger."""
READ_AHEAD_BYTES = 1 << 20
"""How much is read from a store at once: a few groups of pictures, in one request."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRange:
    """`length_bytes` bytes of a file from `offset_bytes` on: a media file, or a member of a shard."""

    path: Path
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreRange:
    """`length_bytes` bytes of an object in a store from `offset_bytes` on, read by range."""

    store: "Store"
    key: str
    offset_bytes: int
    length_bytes: int


MediaContent: TypeAlias = bytes | FileRange | StoreRange


def file_media(path: Path, whole_bytes: int = WHOLE_BYTES) -> MediaContent:
    """The content of a file: its bytes, or its place if it has more than `whole_bytes`.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(whole_bytes + 1)
        if len(data) <= whole_bytes:
            return data
        return FileRange(path=path, offset_bytes=0, length_bytes=file.seek(0, io.SEEK_END))


def open_media(media: MediaContent) -> BinaryIO:
    """A readable file over the media's bytes and nothing else. What reading a store raises is a StorageError.

    Raises:
        OSError: the file cannot be opened.
    """
    if isinstance(media, bytes):
        return io.BytesIO(media)
    if isinstance(media, StoreRange):
        return io.BufferedReader(_RangeReader(_StoreSource(media), media.length_bytes), READ_AHEAD_BYTES)
    return io.BufferedReader(_RangeReader(_FileSource(media), media.length_bytes))


def media_bytes(media: MediaContent) -> int:
    """Size in bytes."""
    return len(media) if isinstance(media, bytes) else media.length_bytes


def media_chunks(media: MediaContent) -> Iterator[bytes]:
    """The content in pieces of a megabyte at most.

    Raises:
        OSError: the file cannot be read.
    """
    with open_media(media) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def media_digest(media: MediaContent) -> str:
    """SHA-256 of the content.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    for chunk in media_chunks(media):
        digest.update(chunk)
    return digest.hexdigest()


class _FileSource:
    """Reads a `FileRange`."""

    def __init__(self, part: FileRange) -> None:
        self._file, self._offset_bytes = part.path.open("rb", buffering=0), part.offset_bytes

    def read(self, at: int, length: int) -> bytes:
        self._file.seek(self._offset_bytes + at)
        return self._file.read(length)

    def close(self) -> None:
        self._file.close()


class _StoreSource:
    """Reads a `StoreRange`."""

    def __init__(self, part: StoreRange) -> None:
        self._part = part

    def read(self, at: int, length: int) -> bytes:
        return self._part.store.read_range(self._part.key, self._part.offset_bytes + at, length)

    def close(self) -> None:
        pass


class _RangeReader(io.RawIOBase):
    """Reads a part of a file or object: of bytes 100 to 149 it is at 0 when the file is at 100, and ends after 50."""

    def __init__(self, source: _FileSource | _StoreSource, length_bytes: int) -> None:
        super().__init__()
        self._source, self._length_bytes, self._at = source, length_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer)
        length = min(len(view), max(0, self._length_bytes - self._at))
        data = self._source.read(self._at, length) if length else b""
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._source.close()
        super().close()


def resolve_media_path(root: Path, relative: str, where: str) -> Path:
    """The file that an annotation names, with symbolic links resolved.

    Raises:
        SampleProblem: the path leaves the data folder (`..`, an absolute path or a link), or there is no such file.
    """
    path, is_file, is_folder = _inside(root, relative, where)
    if not is_file:
        what = "is a folder, not a file" if is_folder else "does not exist in the data folder"
        raise missing_media(relative, where, what)
    return path


def resolve_media_folder(root: Path, relative: str, where: str) -> Iterator[str]:
    """The names of what is in a folder of pictures, in no order.

    Raises:
        SampleProblem: the path leaves the data folder, or there is no such folder.
    """
    path, is_file, is_folder = _inside(root, relative, where)
    if not is_folder:
        what = "is a file, not a folder of frames" if is_file else "does not exist in the data folder"
        raise missing_media(relative, where, what)
    try:
        with os.scandir(path) as entries:
            yield from (entry.name for entry in entries)
    except OSError as error:
        raise missing_media(relative, where, f"cannot be read ({error.strerror})") from error


def _inside(root: Path, relative: str, where: str) -> tuple[Path, bool, bool]:
    """A path of an annotation, resolved; and whether it is a file, and a folder."""
    folder = root.resolve()
    try:
        path = (folder / relative).resolve()
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a circle of links, a folder without access
        detail = getattr(error, "strerror", None) or "no system takes it as a path"
        raise missing_media(relative, where, f"is not a usable path ({detail})") from error
    if not path.is_relative_to(folder):
        raise outside_folder(relative, where)
    return path, is_file, is_folder


def read_all_media(root: Path, paths: Iterable[str], where: str) -> dict[str, MediaContent]:
    """Content of each file that an annotation names, by its path; no more than WHOLE_BYTES of all is in memory.

    Raises:
        SampleProblem: a path leaves the data folder, or a file is missing, too large or cannot be read.
    """
    resolved = {path: resolve_media_path(root, path, where) for path in dict.fromkeys(paths)}
    media: dict[str, MediaContent] = {}
    room = WHOLE_BYTES
    for path, file in resolved.items():
        media[path] = content = read_media(file, path, where, whole_bytes=room)
        room -= len(content) if isinstance(content, bytes) else 0
    return media


def read_media(path: Path, relative: str, where: str, *, whole_bytes: int = WHOLE_BYTES) -> MediaContent:
    """Content of a resolved media file: its bytes, or its place if it has more than `whole_bytes`.

    Raises:
        SampleProblem: the file cannot be read.
    """
    try:
        media = file_media(path, whole_bytes)
    except OSError as error:
        raise missing_media(relative, where, f"cannot be read ({error.strerror})") from error
    check_size(media_bytes(media), relative, where)
    return media


def check_size(length_bytes: int, relative: str, where: str) -> None:
    """Raise SampleProblem for a file that is too large for a shard."""
    if length_bytes > MAX_BYTES:
        reason = f"media file {relative!r} has {length_bytes} bytes, more than a shard's {MAX_BYTES}. Shorten it."
        raise SampleProblem(ProblemKind.TOO_LONG, reason, where)


def outside_folder(relative: str, where: str) -> SampleProblem:
    """The refusal of a path that leaves the data folder."""
    return SampleProblem(
        ProblemKind.OUTSIDE_FOLDER,
        f"{shown(relative)} leads outside the data folder. A dataset may read only its own files: put the file "
        "into the folder and write its path relative to the folder.",
        where,
    )


def missing_media(relative: str, where: str, what: str) -> SampleProblem:
    """The refusal of a file that is not there or cannot be read; `what` says so."""
    return SampleProblem(
        ProblemKind.MISSING_FILE, f"media file {shown(relative)} {what}. Restore the file or drop the sample.", where
    )
