"""Flat arrays on disk: one `.npy` file each, read by range, every block with its digest.

A reader takes bytes with `pread` instead of mapping the file: memory does not grow with what was read, and a file that
is cut short gives an error instead of a bus error that ends the process.
"""

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vl3.data.plan.facts import ArrayFacts
from vl3.errors import DataError
from vl3.system.files import storage_errors

BLOCK_BYTES = 1 << 20
"""Bytes of one block, about: the least that a reader reads and hashes. A step reads one or two blocks of each array."""


class ArrayWriter:
    """Writes an array part by part. Use as a context manager; `facts` is valid after it."""

    def __init__(self, path: Path, dtype: np.dtype, items: int) -> None:
        """Open the file and write its header; exactly `items` items must follow.

        Raises:
            StorageError: the file cannot be written.
        """
        self._path, self._dtype, self._items = path, dtype, items
        self._block = bytearray()
        self._digests: list[str] = []
        self._header = _header(dtype, items)
        with storage_errors(path):
            self._file = path.open("wb")
            self._file.write(self._header)

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(self, *_: object) -> None:
        with storage_errors(self._path):
            if self._block:
                self._digests.append(hashlib.sha256(self._block).hexdigest())
            self._file.close()

    @property
    def facts(self) -> ArrayFacts:
        """Length and digests, after everything was written."""
        return ArrayFacts(
            items=self._items,
            header_bytes=len(self._header),
            header_sha256=hashlib.sha256(self._header).hexdigest(),
            sha256=tuple(self._digests),
        )

    def write(self, part: np.ndarray) -> None:
        """Append items.

        Raises:
            StorageError: the disk is full or the file cannot be written.
        """
        data, size = part.astype(self._dtype, copy=False).tobytes(), _block_bytes(self._dtype)
        with storage_errors(self._path):
            self._file.write(data)
        self._block += data
        whole = len(self._block) - len(self._block) % size
        for start in range(0, whole, size):
            self._digests.append(hashlib.sha256(self._block[start : start + size]).hexdigest())
        del self._block[:whole]


class FlatArray:
    """An array on disk of which ranges are read. Close it."""

    def __init__(self, path: Path, dtype: np.dtype, facts: ArrayFacts) -> None:
        """Open the file and check its header and length; no item is read.

        Raises:
            DataError: the file is missing, or its header or length is not that of the facts.
        """
        self._path, self._dtype, self._facts = path, dtype, facts
        self._held: tuple[int, bytes] | None = None
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            self._offset = self._check_file()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self._facts.items

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The items [start, stop), as an array of their own.

        Blocks of 4 items, items 3 to 9 asked: blocks 0, 1 and 2 are read and checked; of their 12 items the first 3 and
        the last 3 are cut off.

        Raises:
            DataError: the array has no such items, or a block is not the one that was written.
        """
        if not 0 <= start <= stop <= len(self):
            raise DataError(
                f"{self._path} has {len(self)} items, and {start} to {stop} were asked for: the plan's arrays do not "
                "belong together. Plan the stage again."
            )
        if start == stop:
            return np.empty(0, dtype=self._dtype)
        per_block = _block_bytes(self._dtype) // self._dtype.itemsize
        first, last = start // per_block, (stop - 1) // per_block
        data = b"".join(self._blocks(first, last))
        return np.frombuffer(data, dtype=self._dtype)[start - first * per_block : stop - first * per_block].copy()

    def _blocks(self, first: int, last: int) -> Iterator[bytes]:
        """Checked blocks; the last one stays at hand, since the next step goes on in it."""
        for number in range(first, last + 1):
            if self._held is None or self._held[0] != number:
                self._held = (number, self._block(number))
            yield self._held[1]

    def _block(self, number: int) -> bytes:
        size = _block_bytes(self._dtype)
        length = min(size, len(self) * self._dtype.itemsize - number * size)
        data = self._bytes(self._offset + number * size, length)
        if hashlib.sha256(data).hexdigest() != self._facts.sha256[number]:
            raise self._damaged(f"its block {number} does not match its digest")
        return data

    def _check_file(self) -> int:
        """Where the first item is, in bytes; refuses a file that is not that of the facts.

        The header is compared and not parsed: it may be anything.
        """
        file, facts = os.fstat(self._descriptor), self._facts
        bytes_of_items = facts.items * self._dtype.itemsize
        if not stat.S_ISREG(file.st_mode) or file.st_size != facts.header_bytes + bytes_of_items:
            raise self._damaged(f"it has {file.st_size} bytes, not {facts.header_bytes + bytes_of_items}")
        if len(facts.sha256) != -(-bytes_of_items // _block_bytes(self._dtype)):
            raise self._damaged(f"the plan has {len(facts.sha256)} digests for it")
        if hashlib.sha256(self._bytes(0, facts.header_bytes)).hexdigest() != facts.header_sha256:
            raise self._damaged("its header does not match its digest")
        return facts.header_bytes

    def _bytes(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise self._unreadable(error) from error

    def _damaged(self, what: str) -> DataError:
        return DataError(f"{self._path} is damaged: {what}. Plan the stage again.")

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(f"{self._path} cannot be read ({error.strerror}). Plan the stage again.")


def _block_bytes(dtype: np.dtype) -> int:
    """Whole items only: items of 24 bytes give blocks of 43,690 items, 1,048,560 bytes."""
    return max(1, BLOCK_BYTES // dtype.itemsize) * dtype.itemsize


def _header(dtype: np.dtype, items: int) -> bytes:
    """The header of a `.npy` file of one dimension, so that numpy.load and other tools read the array too."""
    buffer = io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (items,)}
    np.lib.format.write_array_header_1_0(buffer, facts)
    return buffer.getvalue()
