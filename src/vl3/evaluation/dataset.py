"""The held-out samples of a run's dataset, or of all datasets of its corpus, read by range: no shard is downloaded."""

from pathlib import Path

from vl3.data.build.heldout import join_heldout
from vl3.data.build.index import INDEX_NAME, SUMMARY_NAME, DatasetIndex
from vl3.data.build.shards import ShardSpan, parse_sample
from vl3.data.corpus import datasets_of
from vl3.data.loader.source import FetchedSample, SampleSource
from vl3.data.sample.media import MediaContent
from vl3.data.sample.records import Record
from vl3.store.artifacts import fetch_file, files_uri
from vl3.store.reference import Reference

_FACTS = ("shard", "offset_bytes", "length_bytes", "sha256", "where", "split")


class HeldoutSamples:
    """Reads held-out samples by their rows in `index`; each is checked against its digest there."""

    def __init__(self, reference: Reference, folder: Path) -> None:
        """Get the index of the dataset, or one of the held-out samples of all datasets.

        Args:
            reference: a dataset, or a corpus of several.
            folder: an empty folder for the indexes, which stays while samples are read.

        Raises:
            StorageError: an index is missing, or is another one than the reference names.
            DataError: an index cannot be read.
        """
        datasets = datasets_of(reference)
        folders = {name: folder / "indexes" / name for name in datasets}
        for name, dataset in datasets.items():
            folders[name].mkdir(parents=True)
            for file in (SUMMARY_NAME, INDEX_NAME):
                fetch_file(dataset, file, folders[name])
        self._numbers = {name: number for number, name in enumerate(datasets)}
        self._source = SampleSource([files_uri(dataset) for dataset in datasets.values()])
        self._joined: Path | None = None
        if len(folders) > 1:
            self._joined = folder / "joined"
            self._joined.mkdir()
            join_heldout(folders, self._joined)
        self.index = DatasetIndex.read(self._joined or next(iter(folders.values())))
        """The samples; those of several datasets have their dataset's name in front."""
        self._table = self.index.table.select(_FACTS)

    def read(self, row: int) -> tuple[Record, dict[str, MediaContent]]:
        """The record and the media by path.

        Raises:
            DataError: the bytes have another digest, or are no sample.
            StorageError: the store does not give them.
        """
        facts = {name: self._table.column(name)[row].as_py() for name in _FACTS}
        where, split = facts.pop("where"), facts.pop("split")
        number, facts["shard"] = self._place_of(facts["shard"])
        fetched = self._source.read(number, ShardSpan(**facts), where=where)
        record, media = parse_sample(fetched.content, where=where, place=fetched.place, split=split)
        return record, _HeldMedia(media, fetched)

    def _place_of(self, shard: str) -> tuple[int, str]:
        """Number of a shard's dataset, and its name there: joined shards are links that tell it."""
        if self._joined is None:
            return 0, shard
        target = (self._joined / shard).readlink()
        return self._numbers[target.parent.name], target.name


class _HeldMedia(dict[str, MediaContent]):
    """Media that may be in a file without a name, which stays open as long as they are used."""

    def __init__(self, media: dict[str, MediaContent], fetched: FetchedSample) -> None:
        super().__init__(media)
        self._fetched = fetched
