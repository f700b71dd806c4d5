"""A dataset's index read part by part: whoever reads it this way holds one part of it and no more."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vl3.config.mixture import ONLY_DATASET
from vl3.data.build.index import INDEX_NAME, read_summary
from vl3.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1 << 17
"""Most rows of a batch."""

DATASET = "dataset"
"""Column that the joined index of several datasets has beside those of one: the name of the row's dataset."""

Batches = Iterator[tuple[str, "pa.RecordBatch"]]
"""Parts of an index in the order of its rows, each with a name for messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexParts:
    """An index that can be read several times, from its first row to its last one."""

    schema: "pa.Schema"
    """Columns of every part."""
    num_rows: int
    """Rows of all parts."""
    read: "Callable[[Sequence[str] | None], Batches]"
    """Reads some columns, or all, in batches of at most BATCH_ROWS rows; raises DataError that names a bad part."""


def parts_of_dataset(folder: Path) -> IndexParts:
    """The index of a built dataset.

    Raises:
        DataError: the folder is not a complete dataset, or its index is no Parquet file.
    """
    read_summary(folder)
    return parts_of_files([folder / INDEX_NAME])


def parts_of_datasets(folders: Mapping[str, Path]) -> IndexParts:
    """The indexes of several built datasets as one, with the column DATASET; of a plain folder, its index as it is.

    Lines and ids get the dataset's name in front, so that no two are equal: `plotqa/annotations/train.jsonl:3`.

    Raises:
        DataError: a folder is not a complete dataset, or its index is no Parquet file.
    """
    import pyarrow as pa

    parts = {name: parts_of_dataset(folder) for name, folder in folders.items()}
    first = next(iter(parts.values()))
    if list(parts) == [ONLY_DATASET]:
        return first

    def read(columns: Sequence[str] | None) -> Batches:
        for name, one in parts.items():
            for place, batch in one.read(columns):
                yield place, _named(batch, name)

    schema = first.schema.append(pa.field(DATASET, pa.string()))
    return IndexParts(schema=schema, num_rows=sum(one.num_rows for one in parts.values()), read=read)


def _named(batch: "pa.RecordBatch", dataset: str) -> "pa.RecordBatch":
    """A batch that says which dataset its rows are of, in DATASET and in lines and ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {name: batch.column(name) for name in batch.schema.names}
    names = pa.repeat(dataset, batch.num_rows)
    for name in ("sample_id", "where"):
        if name in columns:
            columns[name] = pc.binary_join_element_wise(names, columns[name], pa.repeat("/", batch.num_rows))
    return pa.RecordBatch.from_pydict({**columns, DATASET: names})


def parts_of_files(paths: Sequence[Path]) -> IndexParts:
    """An index in Parquet files, one after the other.

    Raises:
        DataError: a file is missing, is no Parquet file, or has other columns than the first one.
    """
    schemas, num_rows = [], 0
    for path in paths:
        schema, rows = _read_footer(path)
        schemas.append(schema)
        num_rows += rows
        if not schema.equals(schemas[0]):
            raise DataError(
                f"{path} has other columns than {paths[0]}: they are not parts of one index. Build the dataset again "
                "with `vl3 data build`."
            )

    def read(columns: Sequence[str] | None) -> Batches:
        for path in paths:
            yield from _read_file(path, columns)

    return IndexParts(schema=schemas[0], num_rows=num_rows, read=read)


def parts_of_table(table: "pa.Table") -> IndexParts:
    """An index in memory."""

    def read(columns: Sequence[str] | None) -> Batches:
        chosen = table if columns is None else table.select(list(columns))
        first = 0
        for batch in chosen.to_batches(max_chunksize=BATCH_ROWS):
            yield _rows(first, batch.num_rows), batch
            first += batch.num_rows

    return IndexParts(schema=table.schema, num_rows=table.num_rows, read=read)


def _read_footer(path: Path) -> "tuple[pa.Schema, int]":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow.remove_metadata(), file.metadata.num_rows
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(str(path), error) from error


def _read_file(path: Path, columns: Sequence[str] | None) -> Batches:
    """Batches that were checked: lengths, offsets, text that is UTF-8, and checksums of pages that have one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            for batch in file.iter_batches(
                BATCH_ROWS, columns=None if columns is None else list(columns), use_threads=False
            ):
                batch.validate(full=True)
                yield f"{path}: {_rows(first, batch.num_rows)}", batch
                first += batch.num_rows
            if first != file.metadata.num_rows:
                raise ValueError(f"it has {first} rows and says that it has {file.metadata.num_rows}")
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(f"{path}, from row {first} on,", error) from error


def _rows(first: int, count: int) -> str:
    return f"rows {first} to {first + count - 1}"


def _unreadable(place: str, error: Exception) -> DataError:
    return DataError(f"{place} cannot be read ({error}). Build the dataset again with `vl3 data build`.")
