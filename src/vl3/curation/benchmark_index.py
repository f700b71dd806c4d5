"""Makes the index of the benchmarks' images and texts (see vl3.curation.scorers.benchmarks)."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from vl3.curation.scorers.benchmarks import INDEX_FILE
from vl3.curation.scorers.image_facts import perceptual_hash
from vl3.curation.source import clean_text
from vl3.curation.table import parquet_bytes
from vl3.data.build.source import open_source
from vl3.data.build.units import Annotations, find_annotations_of, find_units
from vl3.data.sample.image import decode_image
from vl3.data.sample.problems import SampleProblem
from vl3.data.sample.records import Record
from vl3.errors import DataError
from vl3.system.files import atomic_write_bytes


def write_benchmark_index(benchmarks: Mapping[str, str], folder: Path, *, split: str | None = None) -> dict[str, int]:
    """Write the index of benchmarks in the format of data folders.

    Args:
        benchmarks: URI of each benchmark's folder by its name.
        folder: gets benchmarks.parquet.
        split: only the lines of this split; None takes all.

    Returns:
        Number of items of each.

    Raises:
        DataError: a benchmark has no line, or an image of it cannot be read: it could not be kept out of training.
    """
    rows: list[tuple[str, str | None, str]] = []
    counts = {}
    for name, uri in benchmarks.items():
        before = len(rows)
        files = [one for one in find_annotations_of(uri, None) if split in (None, one.split)]
        rows += _rows_of(name, uri, files)
        counts[name] = len(rows) - before
    columns = dict(zip(("item", "phash", "text"), zip(*rows, strict=True), strict=True)) if rows else {}
    table = pa.table({one: pa.array(list(columns.get(one, ())), pa.string()) for one in ("item", "phash", "text")})
    atomic_write_bytes(folder / INDEX_FILE, parquet_bytes(table))
    return counts


def _rows_of(name: str, uri: str, files: list[Annotations]) -> Iterable[tuple[str, str | None, str]]:
    source = open_source(uri)
    for unit in find_units(files) if files else ():
        for record in unit.read():
            if not isinstance(record, Record):
                continue
            item = f"{name}/{record.sample_id}"
            for text in (*(turn.text for turn in record.turns), *(event.text for event in record.events)):
                yield item, None, clean_text(text)
            try:
                with source.opened(record) as (opened, media):
                    for path in opened.images:
                        content = media[path]
                        yield item, perceptual_hash(decode_image(content, item)), ""
            except SampleProblem as problem:
                raise DataError(
                    f"{uri}: {problem} Its copies in the training data could not be found. Restore the benchmark."
                ) from problem
