"""The index of a dataset: one Parquet row for each annotation line, including refused ones.

Token counts are exact: `text_tokens` plus the vision tokens of an image merge is the length that `prepare_sample`
produces. `_m1` and `_m2` are the image merge, of video tokens too: the video merge is always 2, but images and clips
of one sample share its budget, so that the tokens of each depend on both merges. An image and clips that share 90
tokens:

    image_tokens_m1 54  video_tokens_m1 10      image merge 1, video merge 2
    image_tokens_m2  6  video_tokens_m2 48      image merge 2, video merge 2

Of a sample with clips alone the two are equal.

pyarrow is imported inside functions, because the workers of a build fill rows without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, get_args

import numpy as np

from vl3.data.sample.problems import ProblemKind, printable
from vl3.errors import DataError
from vl3.system.documents import parse_object
from vl3.system.files import read_plain

if TYPE_CHECKING:
    import pyarrow as pa

INDEX_NAME = "index.parquet"
REFUSED_NAME = "refused.jsonl"
"""All refused lines, one object each; only if there are any."""
SUMMARY_NAME = "summary.json"
"""Written last: a dataset without it is incomplete."""
_FACT_ORDER = (
    "turns_alternate",
    "tags_match",
    "timestamps_ordered",
    "boxes_in_range",
    "path_inside",
    "media_present",
    "media_decodable",
)
_BROKEN_FACT = {
    ProblemKind.NO_TURNS: "turns_alternate",
    ProblemKind.NO_ANSWER: "turns_alternate",
    ProblemKind.TURNS: "turns_alternate",
    ProblemKind.TAGS: "tags_match",
    ProblemKind.TIMES: "timestamps_ordered",
    ProblemKind.BOXES: "boxes_in_range",
    ProblemKind.OUTSIDE_FOLDER: "path_inside",
    ProblemKind.MISSING_FILE: "media_present",
    ProblemKind.UNDECODABLE: "media_decodable",
}
_UNCHECKED = (ProblemKind.JSON, ProblemKind.STRUCTURE, ProblemKind.DUPLICATE)


@dataclass(kw_only=True, slots=True)
class IndexRow:
    """One line of the annotations. A fact is None if it was not checked because of an earlier problem."""

    sample_id: str
    split: str
    category: str | None = None
    source: str | None = None
    where: str
    shard: str | None = None
    offset_bytes: int | None = None
    length_bytes: int | None = None
    sha256: str | None = None
    num_turns: int | None = None
    num_images: int | None = None
    num_frames: int | None = None
    text_tokens: int | None = None
    supervised_tokens: int | None = None
    image_tokens_m1: int | None = None
    """With image merge 1; see the module for `_m1` and `_m2`."""
    image_tokens_m2: int | None = None
    video_tokens_m1: int | None = None
    """Before DiffFP."""
    video_tokens_m2: int | None = None
    kept_tokens_m1: int | None = None
    """Video tokens after DiffFP."""
    kept_tokens_m2: int | None = None
    min_side_px: int | None = None
    max_side_px: int | None = None
    aspect_ratio: float | None = None
    duration_seconds: float | None = None
    source_fps: float | None = None
    chance: float | None = None
    warning: str | None = None
    problem: str | None = None
    problem_kind: str | None = None
    turns_alternate: bool | None = None
    tags_match: bool | None = None
    timestamps_ordered: bool | None = None
    boxes_in_range: bool | None = None
    path_inside: bool | None = None
    media_present: bool | None = None
    media_decodable: bool | None = None
    media_group: str = ""
    """Digest that all samples have in common that share a file, directly or through others: they stay in one split."""
    media_sha256: str | None = None
    """Digests of the media files in order, with spaces between; empty for a sample without media."""
    content_sha256: str | None = None
    """Digest of what is learnt: texts, times and media, without id, source and place."""
    unknown_keys: str | None = None
    """Keys of the line that were not read, with commas between."""

    def refuse(self, kind: ProblemKind, reason: str) -> None:
        """Record a problem: facts checked before it are True, the one it breaks is False, later ones stay None.

        For a missing file `turns_alternate` to `path_inside` are True, `media_present` is False, the
        last one None.
        """
        self.problem, self.problem_kind = printable(reason), kind.value
        self.shard = self.offset_bytes = self.length_bytes = None
        self.sha256 = self.media_sha256 = self.content_sha256 = None
        known = () if kind in _UNCHECKED else _FACT_ORDER
        broken = _BROKEN_FACT.get(kind)
        for name in known:
            setattr(self, name, name != broken)
            if name == broken:
                break

    def accept(self) -> None:
        """Record that every check passed."""
        for name in _FACT_ORDER:
            setattr(self, name, True)


def write_index(path: Path, rows: Sequence[IndexRow]) -> None:
    """Write the rows as Parquet; the same rows give the same bytes."""
    import pyarrow.parquet as pq

    pq.write_table(index_table(rows), path, compression="zstd", write_page_checksum=True)


def index_table(rows: Sequence[IndexRow]) -> "pa.Table":
    """The rows as columns."""
    import pyarrow as pa

    schema = index_schema()
    columns = [
        pa.array([getattr(row, name) for row in rows], kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


@cache
def index_schema() -> "pa.Schema":
    """Columns of the index and their Parquet types."""
    import pyarrow as pa

    types: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = [(column.name, (get_args(column.type) or (column.type,))[0]) for column in fields(IndexRow)]
    return pa.schema([(name, types[kind]) for name, kind in columns])


class DatasetIndex:
    """A dataset's index in memory."""

    def __init__(self, folder: Path, table: "pa.Table") -> None:
        """Use `DatasetIndex.read`."""
        self.folder = folder
        self.table = table
        self._columns: dict[str, np.ndarray] = {}

    @classmethod
    def read(cls, folder: Path) -> "DatasetIndex":
        """Read the index of a built dataset.

        Raises:
            DataError: the folder is not a complete dataset, or its index cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = Path(folder)
        read_summary(folder)
        try:
            # pq.read_table would import pyarrow.dataset and pandas, which takes every process a second at start-up.
            with pq.ParquetFile(folder / INDEX_NAME) as file:
                return cls(folder, file.read())
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(folder / INDEX_NAME, error) from error

    def __len__(self) -> int:
        """Number of annotation lines, including refused ones."""
        return self.table.num_rows

    def column(self, name: str) -> np.ndarray:
        """One column as a numpy array; null is 0 in integer columns, NaN in float columns and None in others."""
        if name not in self._columns:
            self._columns[name] = _to_numpy(self.table.column(name))
        return self._columns[name]

    def row(self, number: int) -> dict[str, Any]:
        """One row as a dictionary."""
        return self.table.slice(number, 1).to_pylist()[0]

    @cached_property
    def is_usable(self) -> np.ndarray:
        """Whether each line is a sample without a problem, bool (rows,)."""
        return np.array([kind is None for kind in self.column("problem_kind")], dtype=np.bool_)

    def usable_rows(self, split: str) -> np.ndarray:
        """Numbers of the rows of one split that have no problem, in the order of the annotations."""
        return np.flatnonzero(self.is_usable & (self.column("split") == split))


def check_columns(names: Sequence[str], place: Path | str) -> None:
    """Refuse an index of another version, in which a column may mean something else.

    Raises:
        DataError: the columns are not those that this version writes.
    """
    expected = index_schema().names
    if list(names) != expected:
        others = sorted(set(names) ^ set(expected)) or ["their order"]
        raise DataError(
            f"{place} was written by another version of vl3, whose token counts may mean something else (columns that "
            f"differ: {', '.join(others)}). Build the dataset again with `vl3 data build`."
        )


def read_row(folder: Path, number: int, columns: list[str]) -> dict[str, Any]:
    """Some columns of one row of a built dataset's index in a folder; see read_row_from."""
    path = Path(folder) / INDEX_NAME
    try:
        with path.open("rb") as file:
            return read_row_from(file, number, columns, place=str(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def read_row_from(file: BinaryIO, number: int, columns: list[str], *, place: str) -> dict[str, Any]:
    """Some columns of one row of a built dataset's index; only the part of the file that has the row is read.

    Args:
        file: the index, seekable.
        number: which row.
        columns: their names.
        place: what messages call the file.

    Raises:
        DataError: the index cannot be read or has no such row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    left = number
    try:
        with pq.ParquetFile(file) as index:
            for group in range(index.num_row_groups):
                if left < index.metadata.row_group(group).num_rows:
                    return index.read_row_group(group, columns=columns).slice(left, 1).to_pylist()[0]
                left -= index.metadata.row_group(group).num_rows
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(place, error) from error
    raise DataError(
        f"{place} has {number - left} rows and no row {number}. Build the dataset again with `vl3 data build`."
    )


def integers(column: "pa.Array") -> np.ndarray:
    """An integer column as int64, null as 0, from its buffers: pyarrow's own conversion would import pandas (a second).

    Raises:
        ValueError: the column has another type.
    """
    valid, values = column.buffers()
    if str(column.type) not in ("int32", "int64"):
        raise ValueError(f"it has a column of {column.type} where integers are expected")
    part = slice(column.offset, column.offset + len(column))
    numbers = buffer_items(values, str(column.type))[part].astype(np.int64)
    return numbers * is_valid(column) if valid is not None else numbers


def buffer_items(buffer: Any, dtype: str) -> np.ndarray:
    """The items of one of pyarrow's buffers, which is None where there is nothing, without a copy."""
    return np.frombuffer(b"" if buffer is None else buffer, dtype=dtype)


def is_valid(column: "pa.Array") -> np.ndarray:
    """Which values of a column are not null, bool (rows,): a bit each, the lowest of a byte first."""
    bits = column.buffers()[0]
    if bits is None:
        return np.ones(len(column), dtype=np.bool_)
    unpacked = np.unpackbits(buffer_items(bits, "uint8"), bitorder="little")
    return unpacked[column.offset : column.offset + len(column)].astype(np.bool_)


def _to_numpy(values: "pa.ChunkedArray") -> np.ndarray:
    """Texts, floats and booleans go through Python objects (see `integers`)."""
    import pyarrow as pa

    if pa.types.is_integer(values.type):
        return np.concatenate([np.empty(0, dtype=np.int64), *(integers(chunk) for chunk in values.chunks)])
    items = values.to_pylist()
    if pa.types.is_floating(values.type):
        return np.array([np.nan if item is None else item for item in items], dtype=np.float64)
    return np.array(items, dtype=object)


def _unreadable(path: Path | str, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({error}). Build the dataset again with `vl3 data build`.")


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a built dataset.

    Raises:
        DataError: the folder is not a complete dataset.
    """
    path = folder / SUMMARY_NAME
    try:
        return parse_object(read_plain(path))
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is not a complete dataset: {SUMMARY_NAME}, which is written last, is missing. "
            "Build it with `vl3 data build`."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Build the dataset again with `vl3 data build`.") from error
