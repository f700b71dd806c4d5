"""Tar shards with WebDataset names: the members of a sample are next to each other, so one byte range covers it.

Member names are `<key>.json` for the annotation and `<key>.<n>.<extension>` for its media in order. The bytes depend
only on the content: no times, no owners.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from vl3.config.data import Category
from vl3.data.build.index import DatasetIndex
from vl3.data.sample.clips import Clip
from vl3.data.sample.media import (
    WHOLE_BYTES,
    FileRange,
    MediaContent,
    media_bytes,
    media_chunks,
    media_digest,
    open_media,
)
from vl3.data.sample.records import Record, StreamEvent, Turn
from vl3.errors import DataError
from vl3.system.files import storage_errors

_BLOCK_BYTES = 512
_SHARD = re.compile(r"shard-[0-9]{6,}\.tar")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSpan:
    """Where a sample is stored: bytes [offset, offset + length) of a shard, and their SHA-256.

    A tar member is a header of 512 bytes and its content, padded to a multiple of 512. A sample with 300 bytes of JSON
    and a picture of 1000 bytes takes 512 + 512 + 512 + 1024 = 2560 bytes; the next sample's offset is 2560 higher.
    """

    shard: str
    offset_bytes: int
    length_bytes: int
    sha256: str


def shard_name(number: int) -> str:
    """File name of a shard.

    >>> shard_name(7)
    'shard-000007.tar'
    """
    return f"shard-{number:06d}.tar"


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as JSON-ready data, without what is in the index: split and unknown keys."""
    data = _fields(record)
    del data["split"], data["unknown_keys"]
    for name in ("media", "turns", "events"):
        data[name] = [item if isinstance(item, str) else _fields(item) for item in data[name]]
    return data


def _fields(one: Any) -> dict[str, Any]:
    """The fields of a flat dataclass; asdict would copy every value."""
    return {field.name: getattr(one, field.name) for field in fields(one)}


def record_from_json(data: Mapping[str, Any], *, split: str) -> Record:
    """The inverse of `record_to_json`."""
    values = dict(data)
    values["category"] = Category(values["category"])
    values["media"] = tuple(
        item if isinstance(item, str) else Clip(**{**item, "frames": tuple(item["frames"])}) for item in values["media"]
    )
    values["turns"] = tuple(Turn(**turn) for turn in values["turns"])
    values["events"] = tuple(StreamEvent(**event) for event in values["events"])
    return Record(split=split, **values)


class ShardWriter:
    """Writes one shard, sample by sample. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the shard for writing; an existing file is replaced.

        Raises:
            StorageError: the file cannot be written.
        """
        self._path = path
        with storage_errors(path):
            self._file: BinaryIO = path.open("wb")

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        with storage_errors(self._path):
            self._file.write(bytes(2 * _BLOCK_BYTES))
            self._file.close()

    def write(self, key: str, record: Record, media: Mapping[str, MediaContent]) -> ShardSpan:
        """Append a sample.

        Args:
            key: unique name of the sample within the dataset, without a dot.
            record: the annotation.
            media: content of each of `record.media_paths`.

        Raises:
            StorageError: the disk is full or the file cannot be written.
        """
        paths = list(dict.fromkeys(record.media_paths))
        annotation = json.dumps(record_to_json(record), ensure_ascii=False, sort_keys=True).encode()
        members: list[tuple[str, MediaContent]] = [(f"{key}.json", annotation)]
        members += [(f"{key}.{number}{_suffix(path)}", media[path]) for number, path in enumerate(paths)]
        digest, length = hashlib.sha256(), 0
        with storage_errors(self._path):
            offset = self._file.tell()
            for chunk in (chunk for name, content in members for chunk in _member(name, content)):
                self._file.write(chunk)
                digest.update(chunk)
                length += len(chunk)
        return ShardSpan(shard=self._path.name, offset_bytes=offset, length_bytes=length, sha256=digest.hexdigest())


class ShardReader:
    """Reads samples of a built dataset by their row numbers in the index."""

    def __init__(self, folder: Path, index: DatasetIndex | None = None) -> None:
        """Read the index, unless it is passed in.

        Raises:
            DataError: the folder is not a complete dataset.
        """
        self._folder = Path(folder)
        index = index or DatasetIndex.read(self._folder)
        names = ("shard", "offset_bytes", "length_bytes", "sha256", "split", "where", "problem")
        self._table = index.table.select(names)

    def read(self, row: int) -> tuple[Record, dict[str, MediaContent]]:
        """The record and the media by path.

        Raises:
            DataError: the line was refused when the dataset was built, or the shard is missing or damaged.
        """
        facts = {name: self._table.column(name)[row].as_py() for name in self._table.column_names}
        where, split, problem = facts.pop("where"), facts.pop("split"), facts.pop("problem")
        if facts["shard"] is None:
            raise DataError(
                f"{where}: the line was refused and has no sample ({problem}). Read only rows of "
                "DatasetIndex.usable_rows."
            )
        return read_sample(self._folder, ShardSpan(**facts), where=where, split=split)


def read_sample(folder: Path, span: ShardSpan, *, where: str, split: str) -> tuple[Record, dict[str, MediaContent]]:
    """The record and the media by path of a sample of a built dataset.

    Args:
        folder: the dataset.
        span: where the sample is.
        where: what messages call it.
        split: the split that it belongs to.

    Raises:
        DataError: the shard is missing or damaged.
    """
    path = folder / check_shard(span, where)
    source = FileRange(path=path, offset_bytes=span.offset_bytes, length_bytes=span.length_bytes)
    try:
        content = source if span.length_bytes > WHOLE_BYTES else b"".join(media_chunks(source))
        is_intact = media_digest(content) == span.sha256
    except OSError as error:
        raise DataError(
            f"{where}: {path} cannot be read ({error.strerror}). Restore the shard or build the dataset again."
        ) from error
    if not is_intact:
        raise damaged_sample(where, str(path))
    return parse_sample(content, where=where, place=str(path), split=split)


def check_shard(span: ShardSpan, where: str) -> str:
    """The name of a sample's shard.

    Raises:
        DataError: it is no name of a shard, and could lead out of the dataset.
    """
    if not _SHARD.fullmatch(span.shard):
        raise DataError(
            f"{where}: the index names the shard {span.shard!r:.200}, which is no file of this dataset. Build it again."
        )
    return span.shard


def damaged_sample(where: str, place: str) -> DataError:
    """What is wrong with a sample whose bytes have another digest."""
    return DataError(
        f"{where}: its bytes in {place} do not match the digest in the index. The shard is damaged; build the "
        "dataset again."
    )


def parse_sample(
    content: MediaContent, *, where: str, place: str, split: str
) -> tuple[Record, dict[str, MediaContent]]:
    """The record and the media by path of a sample whose digest was checked; of a large one, the places of its media.

    Args:
        content: the bytes of its span.
        where: what messages call it.
        place: its shard, for messages.
        split: the split that it belongs to.

    Raises:
        DataError: the bytes are no sample.
    """
    try:
        return _parse(content, split=split)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, tarfile.TarError) as error:
        raise DataError(f"{where}: its bytes in {place} are no sample ({error}). Build the dataset again.") from error


def _parse(content: MediaContent, *, split: str) -> tuple[Record, dict[str, MediaContent]]:
    with open_media(content) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        annotation, *media = [_part(content, info) for info in archive]
    record = record_from_json(json.loads(b"".join(media_chunks(annotation))), split=split)
    return record, dict(zip(dict.fromkeys(record.media_paths), media, strict=True))


def _part(content: MediaContent, info: tarfile.TarInfo) -> MediaContent:
    """A member's bytes, or their place.

    Raises:
        ValueError: it is no plain file, or it would lead out of the sample.
    """
    offset, length = info.offset_data, info.size
    if not info.isreg() or not 0 <= length <= media_bytes(content) - offset:
        raise ValueError(f"its member {info.name!r:.100} is no file within it")
    if isinstance(content, bytes):
        return content[offset : offset + length]
    return replace(content, offset_bytes=content.offset_bytes + offset, length_bytes=length)


def _suffix(path: str) -> str:
    """The suffix of a media file if it is an ordinary one: a tar header has room for 100 bytes of name."""
    suffix = Path(path).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ""


def _member(name: str, content: MediaContent) -> Iterator[bytes]:
    """One tar member: header, content, padding."""
    info = tarfile.TarInfo(name)
    info.size = media_bytes(content)
    info.mode = 0o644
    yield info.tobuf(format=tarfile.USTAR_FORMAT)
    yield from media_chunks(content)
    yield bytes(-info.size % _BLOCK_BYTES)
