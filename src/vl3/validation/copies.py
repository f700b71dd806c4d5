"""Which rows of an index repeat another: ids that are used twice, equal samples, held-out content that is trained on.

The keys of all rows are brought together on disk (24 bytes each), a bucket at a time, so memory does not grow with the
number of rows, but only with that of rows that have the same content.

Legend: K keys · R rows of a batch.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vl3.data.build.parts import BATCH_ROWS, IndexParts
from vl3.validation.spill import Spill

if TYPE_CHECKING:
    import pyarrow as pa

SAME_ID, FIRST_COPY, HELD_OUT_COPY = "same_id", "first_copy", "held_out_copy"
LINKS = (SAME_ID, FIRST_COPY, HELD_OUT_COPY)
"""Another row with this id; the first row of the same split with this content; for a held-out row, a training row with
this content or one of its files."""
COLUMNS = ("sample_id", "split", "problem", "problem_kind", "content_sha256", "media_sha256")
"""What is read of the index."""

_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("owner", "<u8")])
"""128 bits of hash of an id or a digest, and whose it is: row * 8 + kind * 2 + whether the row is held out."""
_ID, _CONTENT, _FILE = 0, 1, 2
_LINK = np.dtype([("row", "<u8"), ("other", "<u8"), ("kind", "u1")])
_KEY_BUCKETS = 256
_NONE = np.uint64(2**64 - 1)
_SALTS = ("high half of key", "low  half of key")
_ID_SALTS = ("high half of ids", "low  half of ids")


class Copies:
    """The links between rows, on disk. Use as a context manager."""

    def __init__(self, parts: IndexParts, folder: Path) -> None:
        """Read the index once and find all links.

        Args:
            parts: the index.
            folder: an empty folder for what does not fit into memory: some 70 bytes for each row.

        Raises:
            DataError: a part of the index cannot be read.
            StorageError: the folder's disk is full.
        """
        self.num_lines = 0
        self.num_refused = 0
        with ExitStack() as stack:
            keys = stack.enter_context(Spill(folder / "keys", _KEY, _KEY_BUCKETS))
            for _, batch in parts.read(COLUMNS):
                self._add(batch, keys)
            links = Spill(folder / "links", _LINK, self.num_lines // BATCH_ROWS + 1)
            for bucket in range(_KEY_BUCKETS):
                for found in _find_links(keys.read(bucket)):
                    links.add(found, (found["row"] // BATCH_ROWS).astype(np.int64))
        self._links = links

    def __enter__(self) -> "Copies":
        return self

    def __exit__(self, *_: object) -> None:
        self._links.__exit__()

    def of_rows(self, first: int, count: int) -> dict[str, np.ndarray]:
        """For each of LINKS, the other row of each of the rows [first, first + count), int64 (R,); -1 for none."""
        others = {name: np.full(count, -1, dtype=np.int64) for name in LINKS}
        for bucket in range(first // BATCH_ROWS, (first + max(count, 1) - 1) // BATCH_ROWS + 1):
            found = self._links.read(bucket)
            found = found[(found["row"] >= first) & (found["row"] < first + count)]
            found = found[np.lexsort((found["other"], found["row"]))[::-1]]  # the lowest other row is written last
            for kind, name in enumerate(LINKS):
                own = found[found["kind"] == kind]
                others[name][(own["row"] - np.uint64(first)).astype(np.int64)] = own["other"]
        return others

    def first_others(self, limit: int) -> np.ndarray:
        """The other rows of the first `limit` rows that have each kind of link, sorted."""
        named = {name: np.empty(0, dtype=np.int64) for name in LINKS}
        for bucket in range(self._links.num_buckets):
            first = bucket * BATCH_ROWS
            for name, others in self.of_rows(first, min(BATCH_ROWS, self.num_lines - first)).items():
                named[name] = np.concatenate([named[name], others[others >= 0]])[:limit]
        return np.unique(np.concatenate(list(named.values())))

    def _add(self, batch: "pa.RecordBatch", keys: Spill) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        first = self.num_lines
        self.num_lines += batch.num_rows
        self.num_refused += batch.num_rows - batch["problem"].null_count
        is_usable = pc.and_(pc.is_null(batch["problem"]), pc.is_null(batch["problem_kind"]))
        rows = first + np.flatnonzero(is_usable.to_numpy(zero_copy_only=False))
        batch = batch.filter(is_usable)
        is_heldout = pc.fill_null(pc.equal(_text(batch["split"]), pa.scalar("heldout")), False)
        owners = rows.astype(np.uint64) * 8 + is_heldout.to_numpy(zero_copy_only=False).astype(np.uint64)
        for kind, name in ((_ID, "sample_id"), (_CONTENT, "content_sha256")):
            _add_keys(batch[name], owners, kind, keys)
        files = pc.split_pattern(pc.fill_null(_text(batch["media_sha256"]), ""), " ")
        places = pc.list_parent_indices(files).to_numpy(zero_copy_only=False)
        _add_keys(pc.list_flatten(files), owners[places], _FILE, keys)


def _text(column: Any) -> Any:
    """As plain text: a column without any value has no type, another may be coded."""
    import pyarrow as pa

    return column.cast(pa.string())


def _add_keys(texts: Any, owners_K: np.ndarray, kind: int, keys: Spill) -> None:
    """Add the keys of some texts; null and empty ones have none.

    A picture that is trained on again and again needs one key a batch, because its first training row is all that is
    asked for.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = _text(texts)
    is_known = pc.fill_null(pc.greater(pc.binary_length(texts), pa.scalar(0)), False)
    values = texts.filter(is_known).to_numpy(zero_copy_only=False)
    found_K = np.zeros(len(values), dtype=_KEY)
    if not len(found_K):
        return
    for half, salt in zip(("high", "low"), _ID_SALTS if kind == _ID else _SALTS, strict=True):
        found_K[half] = pd.util.hash_array(values, hash_key=salt, categorize=False)
    found_K["owner"] = owners_K[is_known.to_numpy(zero_copy_only=False)] + np.uint64(2 * kind)
    if kind == _FILE:
        is_again = pd.DataFrame({"high": found_K["high"], "low": found_K["low"], "held": found_K["owner"] & 1})
        found_K = found_K[~(is_again.duplicated().to_numpy() & (found_K["owner"] & 1 == 0))]
    keys.add(found_K, (found_K["high"] >> 56).astype(np.int64))


def _find_links(keys_K: np.ndarray) -> Iterator[np.ndarray]:
    """The links (_LINK) among the keys of a bucket.

    Rows 3 (train), 5 (train), 8 (heldout), 9 (heldout) with one content: 5 has FIRST_COPY 3, 9 has FIRST_COPY 8, and 8
    and 9 have HELD_OUT_COPY 3.
    """
    keys_K = keys_K[np.lexsort((keys_K["owner"], keys_K["low"], keys_K["high"]))]
    is_next = (keys_K["high"][1:] == keys_K["high"][:-1]) & (keys_K["low"][1:] == keys_K["low"][:-1])
    is_new = np.concatenate([[True], ~is_next])[: len(keys_K)]
    is_shared = ~is_new | np.concatenate([is_next, [False]])[: len(keys_K)]
    keys_K, is_new = keys_K[is_shared], is_new[is_shared]
    if not len(keys_K):
        return
    starts, group_K = np.flatnonzero(is_new), np.cumsum(is_new) - 1
    row_K, kind_K, is_heldout_K = keys_K["owner"] >> 3, keys_K["owner"] >> 1 & 3, keys_K["owner"] & 1 == 1

    def lowest(mask_K: np.ndarray) -> np.ndarray:
        """The lowest row of each key's group among the chosen ones, uint64 (K,); _NONE if there is none."""
        return np.minimum.reduceat(np.where(mask_K, row_K, _NONE), starts)[group_K]

    def links(name: str, mask_K: np.ndarray, other_K: np.ndarray) -> np.ndarray:
        mask_K = mask_K & (other_K != _NONE) & (other_K != row_K)
        found = np.zeros(int(mask_K.sum()), dtype=_LINK)
        found["row"], found["other"], found["kind"] = row_K[mask_K], other_K[mask_K], LINKS.index(name)
        return found

    is_id_K, is_content_K = kind_K == _ID, kind_K == _CONTENT
    first_K = lowest(is_id_K)
    second_K = lowest(is_id_K & (row_K != first_K))
    yield links(SAME_ID, is_id_K, np.where(row_K == first_K, second_K, first_K))
    for is_split_K in (is_heldout_K, ~is_heldout_K):
        yield links(FIRST_COPY, is_content_K & is_split_K, lowest(is_content_K & is_split_K))
    yield links(HELD_OUT_COPY, ~is_id_K & is_heldout_K, lowest(~is_id_K & ~is_heldout_K))


def places_of(rows: np.ndarray, parts: IndexParts) -> dict[int, str]:
    """The annotation line of some rows (sorted): a pass over one column, up to the last of them."""
    import pyarrow as pa

    places: dict[int, str] = {}
    first = 0
    for _, batch in parts.read(["where"]) if len(rows) else ():
        here = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + batch.num_rows)]
        names = batch["where"].take(pa.array(here - first)).to_pylist()
        places |= {row: str(name) for row, name in zip(here.tolist(), names, strict=True)}
        first += batch.num_rows
        if first > rows[-1]:
            break
    return places
