"""The work of a build, below one URI: its finished units, each in a folder of its own that appears whole or not at all.

    units/000007/shard-000007.tar   the samples
    units/000007/part.parquet       their rows of the index, one for each line
    units/000007/unit.json          size and digest of both; written last

Two that make the same unit make the same bytes, so it does not matter whose stays. What a kill left has no unit.json,
or has one that does not fit: it is made again.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from vl3.data.build.shards import shard_name
from vl3.errors import StorageError
from vl3.store.manifest import FileEntry, file_sha256
from vl3.store.objects import Store, open_s3, open_store
from vl3.store.uris import join_uri, scheme_of
from vl3.system.documents import parse_object
from vl3.system.files import storage_errors
from vl3.system.folders import remove
from vl3.system.uris import file_path

PART_NAME = "part.parquet"
UNIT_NAME = "unit.json"
_IDENTITY = "made-by.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeUnit:
    """A unit that is there."""

    number: int
    shard: FileEntry
    """shard-NNNNNN.tar."""
    part: FileEntry
    """part.parquet."""

    @property
    def files(self) -> dict[str, FileEntry]:
        """Its files by name."""
        return {shard_name(self.number): self.shard, PART_NAME: self.part}


class Work:
    """The units of one build at a file:// or s3:// URI. It is sent to other processes."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @cached_property
    def _store(self) -> Store:
        return open_store(self.uri)

    @cached_property
    def folder(self) -> Path | None:
        """The folder of a file:// URI; None for a bucket."""
        return file_path(self.uri) if scheme_of(self.uri) == "file" else None

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}  # connections stay here

    def begin(self, identity: str) -> bool:
        """Keep what was made with the same identity (code, configuration, data), and remove everything else.

        Returns:
            Whether anything was kept.

        Raises:
            StorageError: the place cannot be read or written.
        """
        is_same = self._store.read(_IDENTITY) == identity.encode()
        if not is_same:
            for key in self._store.list():
                self._store.delete(key)
            self.put_chunks([identity.encode()], _IDENTITY)
        if self.folder is not None:  # what kills left
            with storage_errors(self.folder):
                for left in self.folder.glob("units/.*"):
                    remove(left)
        return is_same

    def put_chunks(self, chunks: Iterable[bytes], key: str) -> None:
        """Store a file that is given in pieces."""
        with tempfile.TemporaryDirectory(prefix="vl3-work-", dir=self.folder and self.folder.parent) as folder:
            path = Path(folder, "file")
            with storage_errors(path), path.open("wb") as file:
                file.writelines(chunks)
            self._store.put_file(path, key)

    @contextmanager
    def scratch(self, number: int) -> Iterator[Path]:
        """An empty local folder to make a unit in."""
        beside = self.folder / "units" if self.folder is not None else None
        with storage_errors(beside or Path(tempfile.gettempdir())):
            if beside is not None:
                beside.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f".{number:06d}-", dir=beside))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, made: MadeUnit) -> None:
        """Publish a unit that was made in its scratch folder.

        Raises:
            StorageError: the disk is full or the store fails.
        """
        facts = (json.dumps(asdict(made), sort_keys=True) + "\n").encode()
        with storage_errors(folder):
            (folder / UNIT_NAME).write_bytes(facts)
        if self.folder is not None:
            self._rename(folder, self.folder / _place(made.number))
            return
        store = open_s3(self.uri)
        for name, entry in made.files.items():
            store.put_entry(folder / name, f"{_place(made.number)}/{name}", entry)
        store.put_file(folder / UNIT_NAME, f"{_place(made.number)}/{UNIT_NAME}")

    def _rename(self, folder: Path, target: Path) -> None:
        """Rename a folder to its place; what is there is damaged, or the same unit of another maker."""
        with storage_errors(target):
            try:
                folder.rename(target)
            except OSError:
                if not target.exists():
                    raise
                remove(target)
                folder.rename(target)

    def find(self, number: int) -> MadeUnit | None:
        """A unit, if it is there whole. Files of a folder are read; objects were verified when they were stored.

        Raises:
            StorageError: the store fails.
        """
        made = self._facts(number)
        if made is None:
            return None
        return made if self._is_whole(made) else None

    def _is_whole(self, made: MadeUnit) -> bool:
        if self.folder is None:
            sizes = open_s3(self.uri).sizes(f"{_place(made.number)}/")
            return all(sizes.get(f"{_place(made.number)}/{n}") == entry.size_bytes for n, entry in made.files.items())
        place = self.folder / _place(made.number)
        try:
            return all(file_sha256(place / name) == entry.sha256 for name, entry in made.files.items())
        except OSError:
            return False

    def _facts(self, number: int) -> MadeUnit | None:
        data = self._store.read(f"{_place(number)}/{UNIT_NAME}")
        try:
            body = parse_object(data or b"")
            made = MadeUnit(number=body["number"], shard=FileEntry(**body["shard"]), part=FileEntry(**body["part"]))
        except (ValueError, KeyError, TypeError):
            return None
        return made if made.number == number else None

    def require(self, number: int) -> MadeUnit:
        """What unit.json says of a unit that was made.

        Raises:
            StorageError: it is gone.
        """
        made = self._facts(number)
        if made is None:
            raise StorageError(
                f"{join_uri(self.uri, _place(number))}: the unit was made and is gone. Stop what deletes there, then "
                "start the build again: it makes what is missing."
            )
        return made

    def read_part(self, made: MadeUnit) -> bytes:
        """The bytes of a unit's part of the index.

        Raises:
            StorageError: they are not those that were made.
        """
        data = self._store.read(f"{_place(made.number)}/{PART_NAME}")
        if data is None or hashlib.sha256(data).hexdigest() != made.part.sha256:
            raise StorageError(
                f"{join_uri(self.uri, _place(made.number), PART_NAME)}: the part of the index is "
                f"{'missing' if data is None else 'damaged'}. Start the build again: it makes it again."
            )
        return data

    def shard_path(self, number: int) -> Path:
        """Where a shard is in a folder."""
        assert self.folder is not None
        return self.folder / _place(number) / shard_name(number)

    def shard_key(self, number: int) -> str:
        """Where a shard is below the URI."""
        return f"{_place(number)}/{shard_name(number)}"


def _place(number: int) -> str:
    return f"units/{number:06d}"
