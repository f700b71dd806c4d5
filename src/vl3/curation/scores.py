"""Scores by digest of the image and version of the scorer, so that a changed threshold runs no model again.

    scores/aesthetic-9f2c.../lines-000007/0000000128.parquet   what a killed run has finished of the part
    scores/aesthetic-9f2c.../lines-000007.parquet              all of it, once the part is finished

Nothing of thresholds, recipes or runs is in a path or a file. Rows are found by the image's digest; the part only says
where to look. So a part whose images changed in part keeps the scores of the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from vl3.curation.scorer import ERROR_SUFFIX, Batch
from vl3.curation.table import empty_like, parquet_bytes, read_parquet, to_batch, to_table
from vl3.store.objects import Store, open_store
from vl3.store.uris import join_uri

_KEPT_PARTS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerKey:
    """Which scores: those of one version of one scorer."""

    name: str
    version: str
    outputs: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Its folder in the store."""
        return f"{self.name}-{self.version}"

    @property
    def error(self) -> str:
        """Its column of reasons."""
        return self.name + ERROR_SUFFIX

    @property
    def columns(self) -> tuple[str, ...]:
        """All that is stored of it besides the digest."""
        return (*self.outputs, self.error)


class PartScores:
    """What is known of the images of one part by one scorer."""

    def __init__(self, key: ScorerKey, batch: Batch | None) -> None:
        self.key, self._batch = key, batch
        self._place = {} if batch is None else {sha256: i for i, sha256 in enumerate(batch["sha256"])}

    def __len__(self) -> int:
        return len(self._place)

    def known(self, sha256s: Sequence[str | None] | np.ndarray) -> np.ndarray:
        """Which of the images it has a score or a reason for, (N,) bool."""
        return np.fromiter((one in self._place for one in sha256s), dtype=bool, count=len(sha256s))

    def of(self, sha256s: Sequence[str | None] | np.ndarray) -> Batch:
        """The columns for images, in their order; NaN or None where nothing is known."""
        places = np.fromiter((self._place.get(one, -1) for one in sha256s), dtype=np.int64, count=len(sha256s))
        found = {}
        for name in self.key.columns:
            if self._batch is None:
                found[name] = np.full(len(sha256s), None, dtype=object)
                continue
            column = self._batch[name]
            taken = empty_like(column, len(sha256s))
            taken[places >= 0] = column[places[places >= 0]]
            found[name] = taken
        return found


class ScoreStore:
    """The scores below one URI. It is sent to other processes."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._read = lru_cache(maxsize=_KEPT_PARTS)(self._read_uncached)

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}  # connections and what was read stay here

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["uri"])  # type: ignore[misc]

    def of_part(self, key: ScorerKey, part: str) -> PartScores:
        """What is known of a part, also of one that a killed run has left unfinished.

        Raises:
            StorageError: the store fails, or a file is damaged.
        """
        return self._read(key, part)

    def add(self, key: ScorerKey, part: str, chunk: int, batch: Batch) -> None:
        """Store the scores of one chunk; those of other images of the chunk that are there already stay.

        Args:
            key: which scores.
            part: name of the part.
            chunk: number of the chunk's first row in the part.
            batch: `sha256` and the scorer's columns.

        Raises:
            StorageError: the store fails.
        """
        store, name = self._chunks(key, part), f"{chunk:010d}.parquet"
        table = to_table({"sha256": batch["sha256"], **{one: batch[one] for one in key.columns}})
        before = store.read(name)
        if before is not None:
            table = _latest([read_parquet(before, name), table])
        store.write(name, [parquet_bytes(table)])

    def finish(self, key: ScorerKey, part: str) -> None:
        """Bring the files of a part's chunks together in one.

        Raises:
            StorageError: the store fails.
        """
        chunks = self._chunks(key, part)
        names = chunks.list()
        if not names:
            return
        tables = [read_parquet(data, name) for name in names if (data := chunks.read(name)) is not None]
        whole = self._parts(key)
        before = whole.read(f"{part}.parquet")
        tables = [read_parquet(before, part), *tables] if before is not None else tables
        whole.write(f"{part}.parquet", [parquet_bytes(_latest(tables))])
        for name in names:
            chunks.delete(name)
        self._read.cache_clear()

    def forget(self) -> None:
        """Read from the store next time."""
        self._read.cache_clear()

    def _read_uncached(self, key: ScorerKey, part: str) -> PartScores:
        chunks = self._chunks(key, part)
        files = [self._parts(key).read(f"{part}.parquet"), *(chunks.read(name) for name in chunks.list())]
        tables = [read_parquet(data, f"{self.uri}/{key.folder}/{part}") for data in files if data is not None]
        return PartScores(key, to_batch(_latest(tables)) if tables else None)

    def _parts(self, key: ScorerKey) -> Store:
        return open_store(join_uri(self.uri, key.folder))

    def _chunks(self, key: ScorerKey, part: str) -> Store:
        return open_store(join_uri(self.uri, key.folder, part))


def _latest(tables: list[pa.Table]) -> pa.Table:
    """Rows by digest, in its order; of several with the same digest the last.

    Tables [a: 1, b: 2] and [b: 3] give [a: 1, b: 3].
    """
    whole = pa.concat_tables(_one_schema(tables))
    digests: list[Any] = whole.column("sha256").to_pylist()
    last = {sha256: place for place, sha256 in enumerate(digests)}
    return whole.take([last[sha256] for sha256 in sorted(last)]).combine_chunks()


def _one_schema(tables: list[pa.Table]) -> list[pa.Table]:
    """Columns without any value are of no type yet; they take that of the others."""
    schema = pa.unify_schemas([table.schema for table in tables], promote_options="permissive")
    return [table.cast(schema) for table in tables]
