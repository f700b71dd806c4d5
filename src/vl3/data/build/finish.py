"""The last pass of a build: merges the parts of the index, refuses ids that are used twice, and splits by content.

The parts are read twice, and only columns of numbers are held in between: 8 bytes for each id and 32 for each file. So
memory does not grow with what the samples are, and the same parts give the same bytes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vl3.data.build.index import INDEX_NAME, REFUSED_NAME, IndexRow, index_schema, index_table
from vl3.data.build.splits import Groups, choose_heldout, group_by_content
from vl3.data.build.units import Unit
from vl3.data.build.work import Work
from vl3.data.sample.problems import ProblemKind, shown
from vl3.data.sample.records import default_id
from vl3.errors import StorageError
from vl3.system.files import storage_errors

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP = 1 << 17
"""Rows that are in memory at once, and that a reader of the index reads at once."""
MAX_COUNTED_KEYS = 100
"""Data whose keys are names or numbers of their own would fill the summary otherwise."""
_PARTS_AT_ONCE = 16
_OF_LINE = (
    "sample_id",
    "split",
    "category",
    "source",
    "where",
    "num_turns",
    "num_images",
    "chance",
    "warning",
    "unknown_keys",
)
"""Columns that follow from the annotation alone: a line that is refused as a duplicate has no others."""


@dataclass(kw_only=True)
class Tally:
    """Counts over the rows of the index."""

    lines: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    unknown_keys: Counter[str] = field(default_factory=Counter)
    warnings: int = 0
    media_bytes: int = 0
    heldout_from: str = "none"

    def add(self, table: "pa.Table") -> None:
        """Count some rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        usable = table.filter(pc.is_null(table["problem"]))
        self.lines += table.num_rows
        for column, counts in (("split", self.splits), ("category", self.categories)):
            counts.update(_counts(usable[column].fill_null(pa.scalar("unknown"))))
        self.problems.update(_counts(pc.drop_null(table["problem_kind"])))
        for keys, count in _counts(pc.drop_null(table["unknown_keys"])).items():
            self.unknown_keys.update(dict.fromkeys(keys.split(", "), count))
        self.warnings += usable.num_rows - usable["warning"].null_count
        self.media_bytes += pc.sum(usable["length_bytes"]).as_py() or 0


def _counts(column: Any) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()}


def merge_parts(
    units: Sequence[Unit],
    work: Work,
    folder: Path,
    *,
    brings_heldout: bool,
    holdout_fraction: float,
    progress: Callable[[], None] = lambda: None,
) -> Tally:
    """Write `index.parquet`, and `refused.jsonl` if lines are refused, from the parts of all units.

    Args:
        units: the units, all of which were made.
        work: where they are.
        folder: where to write.
        brings_heldout: whether the annotations name the held-out samples.
        holdout_fraction: share of the samples to hold out otherwise.
        progress: called now and then.

    Raises:
        StorageError: a part is missing or damaged, or the disk is full.
    """
    # Twice over the parts: what repeats an id and what is held out is known only when all rows were seen.
    first = _Columns()
    for table in _tables(units, work):
        first.add(table)
        progress()
    repeated = _find_repeated(first, units, work)
    groups, places = first.group(repeated)
    is_heldout = np.zeros(len(groups.names_G), bool) if brings_heldout else choose_heldout(groups, holdout_fraction)
    tally = Tally(heldout_from="annotations" if brings_heldout else "hash" if is_heldout.any() else "none")
    with ExitStack() as stack:
        stack.enter_context(storage_errors(folder))
        writer = stack.enter_context(_Writer(folder))
        at = 0
        for table in _grouped(_tables(units, work)):
            table = _with_repeats(table, at, repeated)
            table = _with_groups(table, groups, is_heldout, places[at : at + table.num_rows])
            writer.write(table)
            tally.add(table)
            at += table.num_rows
            progress()
    return tally


class _Columns:
    """What the first pass keeps: of each row a hash of its id, and of each usable one the digests of its contents."""

    def __init__(self) -> None:
        self._ids: list[np.ndarray] = []
        self._digests: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        """Contents of each row; 0 for a row that is refused."""

    def add(self, table: "pa.Table") -> None:
        ids = cast(list[str], table["sample_id"].to_pylist())
        self._ids.append(np.array([_id_hash(name) for name in ids], dtype=np.uint64))
        contents: list[str] = []
        counts: list[int] = []
        for problem, media, content in zip(
            *(table[name].to_pylist() for name in ("problem_kind", "media_sha256", "content_sha256")), strict=True
        ):
            found = [] if problem is not None else (media or "").split() or [content]
            counts.append(len(found))
            contents += found
        self._digests.append(np.frombuffer(bytes.fromhex("".join(contents)), np.uint8).reshape(-1, 32))
        self._counts.append(np.array(counts, dtype=np.int32))

    @cached_property
    def ids(self) -> np.ndarray:
        """Hash of each row's id, uint64 (rows)."""
        return np.concatenate(self._ids)

    def group(self, repeated: "dict[int, str]") -> tuple[Groups, np.ndarray]:
        """The groups of the usable rows that are not repeated, and for each row its place among them, or -1.

        Four rows with 1, 0 (refused), 2 and 1 contents, of which the last repeats an id: counts become 1 0 2 0, the
        digests of two rows stay, which start at 0 and 1, and the places are 0 -1 1 -1.
        """
        counts, digests = np.concatenate(self._counts), np.concatenate(self._digests)
        self._counts, self._digests = [], []
        if repeated:
            is_dropped = np.zeros(len(counts), bool)
            is_dropped[list(repeated)] = True
            digests = digests[~np.repeat(is_dropped, counts)]
            counts[is_dropped] = 0
        places = np.where(counts > 0, np.cumsum(counts > 0) - 1, -1)
        starts = (np.cumsum(counts, dtype=np.int64) - counts)[counts > 0]
        return group_by_content(np.ascontiguousarray(digests), starts), places


def _id_hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def _find_repeated(columns: _Columns, units: Sequence[Unit], work: Work) -> dict[int, str]:
    """The rows that are refused because another has their id, each with the reason.

    The first line with an id keeps it. Only a line without one comes before all others with its name: `train-4` is
    the fourth line, so the third that calls itself `train-4` is refused, not the fourth. Lines that are no records
    have no id.

    Ids with the same hash are compared as texts, which are read again: so few that they fit into memory, unless the
    data consist of duplicates.
    """
    order = np.argsort(columns.ids, kind="stable")
    is_same = columns.ids[order[1:]] == columns.ids[order[:-1]]
    suspects = np.unique(np.concatenate([order[1:][is_same], order[:-1][is_same]]))
    if not len(suspects):
        return {}
    lines: list[tuple[int, str, str, bool]] = []
    at = 0
    for table in _tables(units, work):
        here = suspects[np.searchsorted(suspects, at) : np.searchsorted(suspects, at + table.num_rows)]
        if len(here):
            rows = table.select(["sample_id", "where", "split", "category"]).take(here - at).to_pylist()
            for number, row in zip(here.tolist(), rows, strict=True):
                if row["category"] is not None:
                    is_unnamed = row["sample_id"] == default_id(row["split"], row["where"])
                    lines.append((number, row["sample_id"], row["where"], is_unnamed))
        at += table.num_rows
    first = {name: where for _, name, where, is_unnamed in lines if is_unnamed}
    for _, name, where, _ in lines:
        first.setdefault(name, where)
    return {
        number: f"id {shown(name)} is already used at {first[name]}. Give each sample its own id."
        for number, name, where, _ in lines
        if first[name] != where
    }


def _tables(units: Sequence[Unit], work: Work) -> Iterator["pa.Table"]:
    """The part of each unit, in order; several are read at once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read(unit: Unit) -> "pa.Table":
        made = work.require(unit.number)
        try:
            with pq.ParquetFile(BytesIO(work.read_part(made))) as file:
                return file.read(use_threads=False)
        except pa.ArrowException as error:
            raise StorageError(
                f"{work.uri}: the part {unit.number} of the index is no Parquet file ({error})."
            ) from error

    waiting = iter(units)
    with ThreadPoolExecutor(_PARTS_AT_ONCE, thread_name_prefix="parts") as pool:
        while batch := list(islice(waiting, 8 * _PARTS_AT_ONCE)):
            yield from pool.map(read, batch)


def _grouped(tables: Iterable["pa.Table"]) -> Iterator["pa.Table"]:
    """Tables of ROWS_PER_GROUP rows, the last one of fewer."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= ROWS_PER_GROUP:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, ROWS_PER_GROUP).combine_chunks()
            waiting, rows = [joined.slice(ROWS_PER_GROUP)], rows - ROWS_PER_GROUP
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()


def _with_repeats(table: "pa.Table", at: int, repeated: dict[int, str]) -> "pa.Table":
    """The table with the rows refused whose ids are used twice; `at` is the number of its first row."""
    import pyarrow as pa

    here = [number - at for number in repeated if at <= number < at + table.num_rows]
    if not here:
        return table
    pieces, start = [], 0
    for place in sorted(here):
        values = table.slice(place, 1).to_pylist()[0]
        row = IndexRow(**{name: values[name] for name in _OF_LINE})
        row.refuse(ProblemKind.DUPLICATE, repeated[at + place])
        pieces += [table.slice(start, place - start), index_table([row])]
        start = place + 1
    return pa.concat_tables([*pieces, table.slice(start)]).combine_chunks()


def _with_groups(table: "pa.Table", groups: Groups, is_heldout: np.ndarray, places: np.ndarray) -> "pa.Table":
    """The table with the group of each usable row, and with the rows of held-out groups in that split."""
    import pyarrow as pa

    of_row = [int(groups.of_S[place]) if place >= 0 else -1 for place in places.tolist()]
    names = [groups.names_G[group].tobytes().hex() if group >= 0 else "" for group in of_row]
    splits = table["split"].to_pylist()
    if is_heldout.any():
        splits = [
            "heldout" if group >= 0 and is_heldout[group] else split
            for group, split in zip(of_row, splits, strict=True)
        ]
    for name, values in (("media_group", names), ("split", splits)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return table


class _Writer:
    """Writes the index, and the refused lines as JSON: where, id, kind, reason. Without any there is no such file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._refused: Any = None

    def __enter__(self) -> "_Writer":
        import pyarrow.parquet as pq

        (self._folder / REFUSED_NAME).unlink(missing_ok=True)
        self._index = self._stack.enter_context(
            pq.ParquetWriter(self._folder / INDEX_NAME, index_schema(), compression="zstd", write_page_checksum=True)
        )
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, table: "pa.Table") -> None:
        import pyarrow.compute as pc

        self._index.write_table(table)
        refused = table.filter(pc.is_valid(table["problem"])).select(["where", "sample_id", "problem_kind", "problem"])
        for row in refused.to_pylist():
            if self._refused is None:
                self._refused = self._stack.enter_context((self._folder / REFUSED_NAME).open("w", encoding="utf-8"))
            line = {
                "where": row["where"],
                "id": row["sample_id"],
                "kind": row["problem_kind"],
                "reason": row["problem"],
            }
            self._refused.write(json.dumps(line, ensure_ascii=False) + "\n")


def most_frequent(counts: Counter[str]) -> dict[str, int]:
    """The most frequent of the keys that are not read, and how many lines have each."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_COUNTED_KEYS])
