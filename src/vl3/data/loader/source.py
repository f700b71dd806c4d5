"""The bytes of a sample by range, from a folder or an object store, each checked against the digest in the plan."""

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vl3.data.build.shards import ShardSpan, check_shard, damaged_sample
from vl3.data.loader.cache import SampleCache
from vl3.data.sample.media import WHOLE_BYTES, FileRange, MediaContent, media_digest
from vl3.store.objects import Store, open_store
from vl3.store.uris import join_uri, scheme_of
from vl3.system.files import storage_errors
from vl3.system.uris import file_path

_READS = 2
"""How often a sample is read before its digest counts as wrong: bytes may be damaged on their way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedSample:
    """The checked bytes of a sample: in memory, or in a file if there are many. Close it after use."""

    content: MediaContent
    place: str
    """Its shard, for messages."""
    read_bytes: int
    """Bytes that were read from the dataset; fewer or none if they were cached."""
    file: BinaryIO | None = None
    """What keeps the content readable; nobody else needs its name."""

    def close(self) -> None:
        """Let go of the file."""
        if self.file is not None:
            self.file.close()


class SampleSource:
    """Reads samples of built datasets. Threads may share it."""

    def __init__(self, uris: Sequence[str], cache: SampleCache | None = None) -> None:
        """Open the datasets; nothing is read yet.

        Args:
            uris: folder of the files of each dataset (file:// or s3://), by its number in the plan.
            cache: where samples of an object store are kept.

        Raises:
            ConfigError: a URI is malformed.
            StorageError: no credentials are set for an object store.
        """
        self._uris = tuple(uris)
        self._stores: tuple[Store, ...] = tuple(map(open_store, uris))
        self._cache = cache

    @property
    def num_retries(self) -> int:
        """Requests that had to be repeated so far."""
        return max((store.num_retries for store in self._stores), default=0)

    def read(self, dataset: int, span: ShardSpan, *, where: str) -> FetchedSample:
        """The bytes of a sample.

        Args:
            dataset: number of the dataset.
            span: where the sample is.
            where: what messages call it.

        Raises:
            DataError: they have another digest, twice.
            StorageError: the store does not give them; the message names the object.
        """
        shard = check_shard(span, where)
        place, read_bytes = join_uri(self._uris[dataset], shard), 0
        for _ in range(_READS):
            fetched = self._fetch(dataset, span, place, read_bytes)
            with storage_errors(Path(place)):
                if media_digest(fetched.content) == span.sha256:
                    return fetched
            read_bytes = fetched.read_bytes
            fetched.close()
            if self._cache is not None:
                self._cache.drop(span.sha256)
        raise damaged_sample(where, place)

    def _fetch(self, dataset: int, span: ShardSpan, place: str, read_bytes: int) -> FetchedSample:
        """The bytes, unchecked; `read_bytes` were read before."""
        if scheme_of(self._uris[dataset]) == "s3":
            return self._fetch_object(self._stores[dataset], span, place, read_bytes)
        read_bytes += span.length_bytes
        if span.length_bytes > WHOLE_BYTES:
            path = file_path(place)
            part = FileRange(path=path, offset_bytes=span.offset_bytes, length_bytes=span.length_bytes)
            return FetchedSample(content=part, place=str(path), read_bytes=read_bytes)
        data = self._stores[dataset].read_range(span.shard, span.offset_bytes, span.length_bytes)
        return FetchedSample(content=data, place=str(file_path(place)), read_bytes=read_bytes)

    def _fetch_object(self, store: Store, span: ShardSpan, place: str, read_bytes: int) -> FetchedSample:
        """From the cache, or from the store: small ones into memory, large ones into a file on the local disk."""
        cached = self._cache.open(span.sha256) if self._cache is not None else None
        if cached is not None:
            return _from_file(cached, span, place, read_bytes)
        read_bytes += span.length_bytes
        if self._cache is None and span.length_bytes <= WHOLE_BYTES:
            data = store.read_range(span.shard, span.offset_bytes, span.length_bytes)
            return FetchedSample(content=data, place=place, read_bytes=read_bytes)

        def write(file: BinaryIO) -> None:
            for start in range(0, span.length_bytes, WHOLE_BYTES):
                length = min(WHOLE_BYTES, span.length_bytes - start)
                data = store.read_range(span.shard, span.offset_bytes + start, length)
                with storage_errors(Path(tempfile.gettempdir()), needed_bytes=length):
                    file.write(data)

        if self._cache is not None:
            return _from_file(self._cache.add(span.sha256, span.length_bytes, write), span, place, read_bytes)
        with storage_errors(Path(tempfile.gettempdir()), needed_bytes=span.length_bytes):
            file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the sample
        write(file)
        file.flush()
        return _from_file(file, span, place, read_bytes)


def _from_file(file: BinaryIO, span: ShardSpan, place: str, read_bytes: int) -> FetchedSample:
    """A sample in a file of its own, which may have no name any more."""
    if span.length_bytes <= WHOLE_BYTES:
        with file:
            file.seek(0, io.SEEK_SET)
            return FetchedSample(content=file.read(), place=place, read_bytes=read_bytes)
    part = FileRange(path=Path(f"/proc/self/fd/{file.fileno()}"), offset_bytes=0, length_bytes=span.length_bytes)
    return FetchedSample(content=part, place=place, read_bytes=read_bytes, file=file)
