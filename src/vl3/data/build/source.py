"""What a build reads: annotations and media below one URI, a folder or a bucket.

A folder is read in place. From a bucket each sample's media are read when it is built: small ones into memory, a large
one to a file that is gone with its sample. So no disk ever holds the data.
"""

import hashlib
import os
import posixpath
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias

from vl3.data.sample.clips import NamesIn, list_frames
from vl3.data.sample.media import (
    WHOLE_BYTES,
    MediaContent,
    check_size,
    file_media,
    missing_media,
    outside_folder,
    read_all_media,
    resolve_media_folder,
)
from vl3.data.sample.records import Record, annotations_file, annotations_names, find_annotations
from vl3.errors import ConfigError, DataError
from vl3.store.folders import folder_digest_s3
from vl3.store.objects import open_s3
from vl3.store.s3.store import S3Store
from vl3.store.uris import check_key, join_uri, scheme_of
from vl3.system.files import storage_errors
from vl3.system.uris import file_path, file_uri

Opened: TypeAlias = tuple[Record, dict[str, MediaContent]]
"""A record whose frame folders are listed, and the content of each of its files by path."""


def open_source(uri: str) -> "DataSource":
    """The source at a file:// or s3:// URI.

    Raises:
        ConfigError: the URI has another scheme.
    """
    return FolderSource(file_path(uri)) if scheme_of(uri) == "file" else BucketSource(uri)


class FolderSource:
    """A data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def annotations(self, split: str) -> str | None:
        """URI of a split's annotations; None if there are none. DataError if there are two."""
        path = find_annotations(self._folder, split)
        return file_uri(path) if path.exists() else None

    @contextmanager
    def opened(self, record: Record) -> Iterator[Opened]:
        """The record's media while the block lasts. SampleProblem if a file is missing or leads outside."""
        record = _listed(record, partial(resolve_media_folder, self._folder))
        yield record, read_all_media(self._folder, record.media_paths, record.where)


class BucketSource:
    """A data folder in a bucket; the service's address and keys are those of the environment."""

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")

    @cached_property
    def _store(self) -> S3Store:
        return open_s3(self._uri)

    def annotations(self, split: str) -> str | None:
        """See FolderSource."""
        found = [name for name in annotations_names(split) if self._store.exists(name)]
        if len(found) > 1:
            raise DataError(
                f"{self._uri} has both {found[0]} and {found[1]}, and only one can be read. Keep one of them."
            )
        return join_uri(self._uri, found[0]) if found else None

    @contextmanager
    def opened(self, record: Record) -> Iterator[Opened]:
        """See FolderSource. StorageError if the store fails; the message names the object."""
        record = _listed(record, self._names_in)
        with tempfile.TemporaryDirectory(prefix="vl3-media-") as folder:
            yield record, self._read_all(record.media_paths, Path(folder), record.where)

    def _read_all(self, paths: Iterable[str], folder: Path, where: str) -> dict[str, MediaContent]:
        media: dict[str, MediaContent] = {}
        room = WHOLE_BYTES
        for path in dict.fromkeys(paths):
            media[path] = content = self._read(path, folder / str(len(media)), where, room)
            room -= len(content) if isinstance(content, bytes) else 0
        return media

    def _read(self, relative: str, copy: Path, where: str, room: int) -> MediaContent:
        key = _key(relative, where)
        found = self._store.read_start(key, room + 1)
        if found is None:
            raise missing_media(relative, where, "does not exist in the data folder")
        data, size_bytes = found
        check_size(size_bytes, relative, where)
        if size_bytes <= room:
            return data
        with storage_errors(copy, needed_bytes=size_bytes):
            self._store.get_file(key, copy)
            return file_media(copy, 0)

    def _names_in(self, relative: str, where: str) -> Iterator[str]:
        prefix = _key(relative, where).rstrip("/") + "/"
        found = [key.removeprefix(prefix) for key in self._store.list(prefix)]
        if not found:
            raise missing_media(relative, where, "does not exist in the data folder")
        yield from (name for name in found if name and "/" not in name)


DataSource: TypeAlias = FolderSource | BucketSource
"""Annotations and media."""


def source_digest(uri: str) -> str:
    """A digest of the data at a URI without reading the media.

    Raises:
        DataError: there is nothing.
        StorageError: the store fails.
    """
    return folder_digest_s3(uri) if scheme_of(uri) == "s3" else folder_fingerprint(file_path(uri))


def folder_fingerprint(folder: Path) -> str:
    """Digest of a data folder: the annotations' content, and name, size and time of every other file.

    Media are not read: that would take as long as the build that a reuse saves. The dataset that is built from them is
    identified by its content.

    Raises:
        DataError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: the data folder does not exist. Correct DATA.")
    digest = hashlib.sha256()
    for path in sorted(_files(folder)):
        name = os.fsencode(path.relative_to(folder))  # a file's name need not be UTF-8
        if name.startswith(b"annotations/"):
            with path.open("rb") as file:
                digest.update(name + b"\0" + hashlib.file_digest(file, "sha256").digest())
        else:
            facts = path.stat()
            digest.update(name + f"\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if Path(parent, name).is_file())


def _listed(record: Record, names_in: NamesIn) -> Record:
    return replace(record, media=list_frames(record.media, names_in, record.where))


def _key(relative: str, where: str) -> str:
    """The key of a path of an annotation: `m/../a.png` is `a.png`.

    Raises:
        SampleProblem: it leads outside the data folder, or no store takes it.
    """
    key = posixpath.normpath(relative)
    if key.startswith(("/", "../")) or key == "..":
        raise outside_folder(relative, where)
    try:
        return check_key(key, where)
    except ConfigError as error:
        raise missing_media(relative, where, "is not a usable path (no store takes it as a key)") from error


def require_annotations(source: DataSource, uri: str) -> str:
    """URI of the training annotations.

    Raises:
        DataError: there are none.
    """
    found = source.annotations("train")
    if found is None:
        raise DataError(
            f"{join_uri(uri, annotations_file('train'))} does not exist. A data folder needs annotations/train.jsonl; "
            "see docs/data-formats.md."
        )
    return found
