"""The units of work of a build: some lines of the annotations, which become one shard and its part of the index.

A unit is a number and the place of its lines. It does not depend on the machine, on the number of processes, or on any
other unit, so anybody may make it, and makes the same bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from vl3.data.build.source import open_source, require_annotations
from vl3.data.sample.lines import BYTE_ORDER_MARK, LINE_ERRORS, is_blank, is_packed, line_error, lines_of, unpacked
from vl3.data.sample.records import BadLine, Record, annotations_name, read_record
from vl3.errors import DataError
from vl3.store.reader import open_range
from vl3.store.uris import scheme_of
from vl3.system.uris import file_path

SAMPLES_PER_SHARD = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Lines of one annotation file, one after the other."""

    uri: str
    """The file, unpacked."""
    name: str
    """What messages call it."""
    split: str
    offset_bytes: int
    length_bytes: int
    first_line: int
    """Number of the first line in the file, from 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One unit of work: its lines become the shard of its number."""

    number: int
    spans: tuple[Span, ...]
    """Where the lines are; two spans where training annotations end and held-out ones begin."""
    lines: int
    """Lines that are not blank, at most SAMPLES_PER_SHARD."""

    @property
    def first_position(self) -> int:
        """Place of the first line among all lines that are not blank."""
        return self.number * SAMPLES_PER_SHARD

    def read(self) -> Iterator[Record | BadLine]:
        """The records of the lines, and what is wrong with bad ones.

        Raises:
            DataError: the file has changed or cannot be read.
            StorageError: the store fails.
        """
        for span in self.spans:
            try:
                with open_range(span.uri, span.offset_bytes, span.length_bytes) as file:
                    for number, (line, _) in enumerate(lines_of(file), start=span.first_line):
                        line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
                        if not is_blank(line):
                            yield read_record(line, where=f"{span.name}:{number}", split=span.split)
            except OSError as error:
                raise _unreadable(span.uri, error) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """One annotation file."""

    uri: str
    """Where it is read."""
    split: str
    name: str
    """What messages call it."""


def find_annotations_of(source_uri: str, given: str | None) -> list[Annotations]:
    """The annotation files of a build, in order: the one that is given, or those of the source.

    Raises:
        DataError: the source has none.
    """
    if given is not None:
        return [_annotations(given, "train")]
    source = open_source(source_uri)
    found = [_annotations(require_annotations(source, source_uri), "train")]
    heldout = source.annotations("heldout")
    return [*found, _annotations(heldout, "heldout")] if heldout is not None else found


def _annotations(uri: str, split: str) -> Annotations:
    return Annotations(uri=uri, split=split, name=annotations_name(PurePosixPath(_place(uri))))


def are_packed(annotations: Annotations) -> bool:
    """Whether the file is packed, so that a place in it cannot be read alone.

    Raises:
        DataError: it is missing, is not a regular file or cannot be read.
        StorageError: the store fails.
    """
    with _opened(annotations.uri) as file:
        return is_packed(file)


def unpack(annotations: Annotations) -> Iterator[bytes]:
    """The unpacked content of a file in pieces of a megabyte.

    Raises:
        DataError: it is damaged or cannot be read.
        StorageError: the store fails.
    """
    with _opened(annotations.uri) as packed, unpacked(packed) as file:
        while chunk := file.read(1 << 20):
            yield chunk


def find_units(files: list[Annotations]) -> list[Unit]:
    """The units of annotation files that are not packed, found in one pass over them.

    300 lines make the units 0 to 2 with the first positions 0, 128 and 256, and 128, 128 and 44 lines.

    Raises:
        DataError: a file is missing or cannot be read, or the first has no line.
        StorageError: the store fails.
    """
    units: list[Unit] = []
    spans: list[Span] = []
    lines = 0
    for annotations in files:
        start = first = None
        for number, at, end in _filled_lines(annotations):
            if start is None:
                start, first = at, number
            lines += 1
            if lines == SAMPLES_PER_SHARD:
                spans.append(_span(annotations, start, end, first))
                units.append(Unit(number=len(units), spans=tuple(spans), lines=lines))
                spans, lines, start = [], 0, None
        if start is not None:
            spans.append(_span(annotations, start, end, first))
        if not units and not spans:
            raise DataError(
                f"{_place(annotations.uri)} has no lines. Add samples; docs/data-formats.md shows the format."
            )
    return [*units, Unit(number=len(units), spans=tuple(spans), lines=lines)] if spans else units


def _span(annotations: Annotations, start: int, end: int, first: int | None) -> Span:
    assert first is not None
    return Span(
        uri=annotations.uri,
        name=annotations.name,
        split=annotations.split,
        offset_bytes=start,
        length_bytes=end - start,
        first_line=first,
    )


def _filled_lines(annotations: Annotations) -> Iterator[tuple[int, int, int]]:
    """Number, start and end (bytes) of each line that is not blank."""
    at = 0
    with _opened(annotations.uri) as file:
        for number, (line, length) in enumerate(lines_of(file), start=1):
            line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if not is_blank(line):
                yield number, at, at + length
            at += length


@contextmanager
def _opened(uri: str) -> Iterator[BinaryIO]:
    """An annotation file, whose errors become DataError. It is a regular file: a pipe would be waited for."""
    try:
        if scheme_of(uri) == "file" and (path := file_path(uri)).exists() and not path.is_file():
            raise DataError(f"{path} is not a regular file. Write the annotations to a file, one object a line.")
        with open_range(uri) as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(
            f"{_place(uri)} does not exist. A data folder needs annotations/train.jsonl; see docs/data-formats.md."
        ) from error
    except LINE_ERRORS as error:
        raise _unreadable(uri, error) from error


def _place(uri: str) -> str:
    return str(file_path(uri)) if scheme_of(uri) == "file" else uri


def _unreadable(uri: str, error: BaseException) -> DataError:
    return DataError(f"{_place(uri)} cannot be read ({line_error(error)}). Restore the file.")
