"""The held-out samples of a run's dataset, or of all datasets of its corpus."""

from pathlib import Path

from vl3.data.build.heldout import join_heldout
from vl3.data.corpus import datasets_of
from vl3.store.artifacts import fetch
from vl3.store.reference import Reference


def fetch_heldout(reference: Reference, folder: Path) -> Path:
    """A folder with the held-out samples of all datasets: that of the only one, or `folder`, which gets them."""
    folders = {name: fetch(dataset) for name, dataset in datasets_of(reference).items()}
    if len(folders) == 1:
        return next(iter(folders.values()))
    join_heldout(folders, folder)
    return folder
