"""Batches as Arrow tables and back: what is stored is what later steps see, so a stored score equals a fresh one.

features (N, 768) float   <-> fixed-size lists of float16
numbers (N,)              <-> float32, or int64
texts, None               <-> string
files                     <-> binary
"""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from vl3.curation.scorer import Batch
from vl3.errors import StorageError


def to_table(batch: Batch) -> pa.Table:
    """A batch as a table."""
    return pa.table({name: _to_arrow(column) for name, column in batch.items()})


def to_batch(table: pa.Table) -> Batch:
    """A table as a batch."""
    return {name: _to_numpy(table.column(name)) for name in table.column_names}


def stored_form(column: np.ndarray) -> np.ndarray:
    """A column as it will be read back: 0.1 as the nearest float32, features as float16."""
    return _to_numpy(pa.chunked_array([_to_arrow(column)]))


def pack(batch: Batch) -> bytes:
    """A batch as bytes, to travel between processes."""
    table = to_table(batch)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack(data: bytes) -> Batch:
    """What pack made."""
    return to_batch(pa.ipc.open_stream(data).read_all())


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file; equal tables give equal bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_parquet(data: bytes, where: str) -> pa.Table:
    """The table of a Parquet file.

    Raises:
        StorageError: it is damaged.
    """
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(
            f"{where}: cannot be read ({error}). Delete it and start the run again: it is made again."
        ) from error


def empty_like(column: np.ndarray, length: int) -> np.ndarray:
    """A column of the same kind without values: NaN for numbers, None for everything else."""
    if column.ndim == 2:
        return np.full((length, column.shape[1]), np.nan, dtype=column.dtype)
    if column.dtype.kind == "f":
        return np.full(length, np.nan, dtype=column.dtype)
    return np.full(length, None, dtype=object)


def _to_arrow(column: np.ndarray) -> pa.Array:
    if column.ndim == 2:
        flat = pa.array(np.ascontiguousarray(column, dtype=np.float16).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, column.shape[1])
    if column.dtype.kind == "f":
        return pa.array(column.astype(np.float32))
    if column.dtype.kind in "iub":
        return pa.array(column.astype(np.int64))
    values = column.tolist()
    is_binary = any(isinstance(value, bytes) for value in values)
    return pa.array(values, type=pa.large_binary() if is_binary else pa.string())


def _to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        whole: Any = column.combine_chunks()  # a chunked array still, in some versions of Arrow
        flat: Any = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
        return flat.flatten().to_numpy(zero_copy_only=False).astype(np.float16).reshape(-1, kind.list_size)
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return column.to_numpy()
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values
