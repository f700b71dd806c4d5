"""What an adapter is: it reads a dataset in its published layout and says each sample in our annotation format.

An adapter is a frozen dataclass whose fields are its options, with two methods:

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Pairs:
        file: str
        def items(self, folder: Folder) -> Iterator[Item]:
            return folder.json_items(self.file)
        def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
            yield {"image": item.data["picture"], "conversations": turns("Describe the image.", item.data["text"])}

`lines` need not check much: what it raises for an item that is not as the layout says refuses that item with its place
and reason, and each line is checked like any line of an annotation file. A team's own adapter is such a class in one
file, named in the entry points `vl3.data.adapters` of its package.
"""

import csv
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from vl3.data.catalogue import json_stream
from vl3.data.sample.media import resolve_media_path
from vl3.data.sample.problems import ProblemKind, SampleProblem, printable, shown
from vl3.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
MAX_MEMBER_BYTES = 1 << 30
_PARQUET_ROWS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One item of a published file: its place, its content, and the media that are embedded in it, by name."""

    where: str
    data: Any
    media: Mapping[str, bytes] = field(default_factory=dict)


class Adapter(Protocol):
    """Reads one published layout."""

    def items(self, folder: "Folder") -> Iterator[Item]:
        """The items in the order of the files; one at a time is in memory."""

    def lines(self, item: Item, folder: "Folder") -> Iterable[dict[str, Any]]:
        """The samples of an item in our annotation format; paths are below the folder, or names in `item.media`."""


class Folder:
    """A dataset's folder. No path leads out of it."""

    def __init__(self, root: Path) -> None:
        """Raises DataError if there is no such folder."""
        self.root = root
        if not root.is_dir():
            raise DataError(f"{root} is not a folder. Set --root to the folder with the dataset's files.")

    def files(self, pattern: str) -> list[str]:
        """Names of the files that match, relative to the folder, in order; at least one.

        Raises:
            DataError: none matches.
        """
        if pattern.startswith("/") or ".." in PurePosixPath(pattern).parts:
            raise DataError(f"{pattern!r} leads outside of {self.root}. Name files below the folder.")
        found = sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern) if path.is_file())
        if not found:
            raise DataError(
                f"{self.root} has no file {pattern!r}, so it is not laid out as the catalogue says "
                "(`vl3 data catalogue NAME` shows the layout). Correct --root."
            )
        return found

    def path(self, name: str) -> Path:
        """A file of the dataset's own list, with links resolved.

        Raises:
            DataError: it leads outside, or does not exist.
        """
        return resolve_media_path(self.root, name, str(self.root))

    def json_items(self, pattern: str, *keys: str) -> Iterator[Item]:
        """The values of JSON arrays or lines; with `keys` the members of the object there, as `[key, value]`."""
        for name in self.files(pattern):
            path = self.path(name)
            if keys:
                for key, value in json_stream.members(path, *(part for part in keys if part)):
                    yield Item(where=f"{name}:{printable(key, 80)}", data=[key, value])
            else:
                for number, value in enumerate(json_stream.values(path), start=1):
                    yield Item(where=f"{name}:{number}", data=value)

    def text_items(self, pattern: str) -> Iterator[Item]:
        """The lines of text files, without their ends."""
        for name in self.files(pattern):
            with self.path(name).open(encoding="utf-8", errors="replace") as file:
                for number, line in enumerate(file, start=1):
                    yield Item(where=f"{name}:{number}", data=line.rstrip("\r\n"))

    def table_items(self, pattern: str) -> Iterator[Item]:
        """The rows of CSV or TSV files with a heading, as objects."""
        csv.field_size_limit(1 << 24)
        for name in self.files(pattern):
            with self.path(name).open(encoding="utf-8-sig", errors="replace", newline="") as file:
                dialect = "excel-tab" if name.endswith(".tsv") else "excel"
                for number, row in enumerate(csv.DictReader(file, dialect=dialect), start=2):
                    yield Item(where=f"{name}:{number}", data=row)

    def parquet_items(self, pattern: str) -> Iterator[Item]:
        """The rows of Parquet files as objects; a picture in one is `{"bytes": ..., "path": ...}`."""
        import pyarrow
        import pyarrow.parquet

        for name in self.files(pattern):
            try:
                with pyarrow.parquet.ParquetFile(self.path(name)) as file:
                    number = 0
                    for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                        for row in batch.to_pylist():
                            number += 1
                            yield Item(where=f"{name}:{number}", data=row)
            except (OSError, pyarrow.ArrowException) as error:
                raise DataError(f"{name} cannot be read ({error}). Restore the file from its source.") from error

    def tar_items(self, pattern: str) -> Iterator[Item]:
        """The samples of WebDataset tar files: members with one name, by suffix, as `{"jpg": bytes, "txt": bytes}`.

        `a/7.jpg` and `a/7.seg.txt` make one sample `a/7` with the members `jpg` and `seg.txt`.
        """
        for name in self.files(pattern):
            key: str | None = None
            members: dict[str, bytes] = {}
            for found, suffix, content in _tar_members(self.path(name), name):
                if found != key and members:
                    yield Item(where=f"{name}:{printable(key or '', 80)}", data=members)
                    members = {}
                key = found
                members[suffix] = content
            if members:
                yield Item(where=f"{name}:{printable(key or '', 80)}", data=members)

    def find(self, stem: str, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> str:
        """The name of the file that has this stem and one of the suffixes; if there is none, with the first suffix."""
        for suffix in suffixes:
            if (self.root / f"{stem}{suffix}").is_file():
                return f"{stem}{suffix}"
        return f"{stem}{suffixes[0]}"


def _tar_members(path: Path, name: str) -> Iterator[tuple[str, str, bytes]]:
    try:
        with tarfile.open(path, "r|*") as archive:
            for info in archive:
                stem, dot, suffix = PurePosixPath(info.name).name.partition(".")
                if not info.isfile() or not dot or not stem:
                    continue
                if info.size > MAX_MEMBER_BYTES:
                    raise DataError(f"{name}: member {shown(info.name)} has {info.size} bytes. It cannot be read.")
                content = archive.extractfile(info)
                assert content is not None
                yield f"{PurePosixPath(info.name).parent}/{stem}", suffix.lower(), content.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{name} cannot be read ({error}). Restore the file from its source.") from error


def turns(*texts: str) -> list[dict[str, str]]:
    """Questions and answers in turn as a conversation."""
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


def refuse(item: Item, reason: str, kind: ProblemKind = ProblemKind.STRUCTURE) -> SampleProblem:
    """The refusal of an item."""
    return SampleProblem(kind, reason, item.where)


def box_text(box: Sequence[float], width_px: float, height_px: float) -> str:
    """A box in pixels, as corners, in thousandths of the image; parts outside of the image are cut off.

    >>> box_text([50, 20, 100, 60], 200, 100)
    '[250,200,500,600]'
    """
    x0, y0, x1, y1 = box
    scaled = (1000 * x0 / width_px, 1000 * y0 / height_px, 1000 * x1 / width_px, 1000 * y1 / height_px)
    return "[" + ",".join(str(round(min(max(value, 0), 1000))) for value in scaled) + "]"


def interval_text(start_seconds: float, end_seconds: float) -> str:
    """An interval as the answer of temporal grounding (paper sec. 3.2.4).

    >>> interval_text(1, 2.04)
    '1.0-2.0 s'
    """
    return f"{start_seconds:.1f}-{end_seconds:.1f} s"
