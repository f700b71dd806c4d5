"""Records on disk in buckets, for what has to be brought together and does not fit into memory."""

from pathlib import Path

import numpy as np

from vl3.system.files import storage_errors


class Spill:
    """A file of records that are added in any order and read bucket by bucket. Use as a context manager."""

    def __init__(self, path: Path, dtype: np.dtype, num_buckets: int) -> None:
        """Make the file.

        Raises:
            StorageError: it cannot be made.
        """
        self._path, self._dtype, self.num_buckets = path, dtype, num_buckets
        self._runs: list[np.ndarray] = []
        """Of each call of `add`: the first byte of each bucket, and the end of the last one."""
        self._end = 0
        with storage_errors(path):
            self._file = path.open("w+b")

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, records_N: np.ndarray, buckets_N: np.ndarray) -> None:
        """Append records, each to its bucket.

        Buckets 1, 0, 1 of records of 8 bytes in an empty file: the second record is written first, then the first and
        the third; bucket 0 is the bytes 0 to 8, bucket 1 the bytes 8 to 24.

        Raises:
            StorageError: the disk is full.
        """
        order = np.argsort(buckets_N, kind="stable")
        counts = np.bincount(buckets_N, minlength=self.num_buckets)
        edges = self._end + np.concatenate([[0], np.cumsum(counts)]) * self._dtype.itemsize
        with storage_errors(self._path):
            self._file.seek(self._end)
            self._file.write(records_N[order].tobytes())
        self._runs.append(edges)
        self._end = int(edges[-1])

    def read(self, bucket: int) -> np.ndarray:
        """The records of a bucket, in the order in which they were added.

        Raises:
            StorageError: the file cannot be read.
        """
        pieces = [b""]
        with storage_errors(self._path):
            for edges in self._runs:
                first, last = int(edges[bucket]), int(edges[bucket + 1])
                if last > first:
                    self._file.seek(first)
                    pieces.append(self._file.read(last - first))
        return np.frombuffer(b"".join(pieces), dtype=self._dtype)
