"""The built datasets that a step reads, whether the run has one or a corpus of them."""

from pathlib import Path

from vl3.data.build.index import INDEX_NAME, SUMMARY_NAME
from vl3.data.corpus import datasets_of
from vl3.store.artifacts import fetch_file
from vl3.store.reference import Reference


def fetch_indexes(reference: Reference, folder: Path) -> dict[str, Path]:
    """A folder for each dataset by its name, with its index and summary; the shards stay where they are."""
    folders = {}
    for name, dataset in datasets_of(reference).items():
        folders[name] = folder / name
        folders[name].mkdir()
        for file in (SUMMARY_NAME, INDEX_NAME):
            fetch_file(dataset, file, folders[name])
    return folders
