"""Makes the index of the benchmarks' images and texts (see vl3.curation.scorers.benchmarks)."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from vl3.curation.benchmark_copies import CopyContent, IndexEntry, entries_of_copy
from vl3.curation.scorers.benchmarks import INDEX_FILE
from vl3.curation.scorers.image_facts import perceptual_hash
from vl3.curation.source import clean_text, held_out_records
from vl3.curation.table import parquet_bytes
from vl3.data.build.source import open_source
from vl3.data.sample.image import decode_image
from vl3.data.sample.problems import SampleProblem
from vl3.errors import DataError
from vl3.evaluation.catalogue.entry import choose_benchmarks
from vl3.system.files import atomic_write_bytes

_SHOWN = 5


def index_copies(copies: Mapping[str, Path], folder: Path, *, partial: bool = False) -> CopyContent:
    """Write the index of published benchmarks.

    Args:
        copies: by name of the benchmark, the folder that `vl3 eval data` made.
        folder: gets benchmarks.parquet.
        partial: leave out media that cannot be decoded instead of refusing them.

    Returns:
        What was found.

    Raises:
        ConfigError: a name is no benchmark.
        DataError: a copy lacks files, or has media that cannot be decoded: their copies could not be found.
    """
    content = CopyContent()
    benchmarks = choose_benchmarks(copies)
    write_index((one for entry in benchmarks for one in entries_of_copy(entry, copies[entry.name], content)), folder)
    if content.unreadable and not partial:
        (folder / INDEX_FILE).unlink()
        raise DataError(
            f"{len(content.unreadable)} media of the benchmarks cannot be decoded, so their copies in training data "
            f"could not be found: {'; '.join(content.unreadable[:_SHOWN])}. Bring them again, or give --partial."
        )
    return content


def index_held_out(uri: str, folder: Path) -> int:
    """Write the index of the held-out lines of a data folder; returns their number.

    Raises:
        DataError: an image cannot be read: its copies could not be kept out of training.
    """
    items: set[str] = set()

    def entries() -> Iterator[IndexEntry]:
        for entry in _held_out(uri):
            items.add(entry.item)
            yield entry

    write_index(entries(), folder)
    return len(items)


def write_index(entries: Iterable[IndexEntry], folder: Path) -> None:
    """Write benchmarks.parquet."""
    rows = [(one.item, one.phash, one.text) for one in entries]
    names = ("item", "phash", "text")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
    table = pa.table({one: pa.array(list(columns.get(one, ())), pa.string()) for one in names})
    atomic_write_bytes(folder / INDEX_FILE, parquet_bytes(table))


def _held_out(uri: str) -> Iterator[IndexEntry]:
    source = open_source(uri)
    for record in held_out_records(uri):
        item = f"heldout/{record.sample_id}"
        for text in (*(turn.text for turn in record.turns), *(event.text for event in record.events)):
            yield IndexEntry(item=item, text=clean_text(text))
        try:
            with source.opened(record) as (opened, media):
                for path in opened.images:
                    yield IndexEntry(item=item, phash=perceptual_hash(decode_image(media[path], item)))
        except SampleProblem as problem:
            raise DataError(
                f"{uri}: {problem} Its copies in the training data could not be found. Restore the benchmark."
            ) from problem
