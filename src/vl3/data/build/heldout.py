"""The held-out samples of several built datasets as one, for an evaluation."""

from collections.abc import Mapping
from pathlib import Path

from vl3.data.build.index import INDEX_NAME, SUMMARY_NAME, DatasetIndex, index_schema
from vl3.data.build.shards import shard_name
from vl3.system.files import atomic_write_json, storage_errors


def join_heldout(folders: Mapping[str, Path], out: Path) -> None:
    """Write an index of the usable held-out samples of all datasets, with links to their shards, to an empty folder.

    Lines and ids get the dataset's name in front: `plotqa/annotations/heldout.jsonl:3`. Shards are numbered through.

    Raises:
        DataError: a folder is not a complete dataset.
        StorageError: the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    links: dict[tuple[str, str], str] = {}
    rows = []
    for name, folder in folders.items():
        index = DatasetIndex.read(folder)
        for number in index.usable_rows("heldout").tolist():
            row = index.row(number)
            place = (name, row["shard"])
            row["shard"] = links.setdefault(place, shard_name(len(links)))
            row["where"], row["sample_id"] = f"{name}/{row['where']}", f"{name}/{row['sample_id']}"
            rows.append(row)
    with storage_errors(out):
        for (name, shard), link in links.items():
            (out / link).symlink_to(folders[name] / shard)
        pq.write_table(pa.Table.from_pylist(rows, schema=index_schema()), out / INDEX_NAME, compression="zstd")
    atomic_write_json(out / SUMMARY_NAME, {"samples": len(rows)})
