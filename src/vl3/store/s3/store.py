"""A key prefix of an S3 bucket as a store."""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vl3.errors import StorageError
from vl3.store.manifest import FileEntry
from vl3.store.s3.client import client_for, refusal_of
from vl3.store.s3.connection import S3Connection
from vl3.store.s3.transfer import (
    S3Object,
    abort_upload,
    download,
    facts_of,
    put_bytes,
    read_range,
    read_start,
    read_whole,
    upload,
)
from vl3.store.uris import check_key, split_s3

_NOT_CONDITIONAL = ("NotImplemented", "MethodNotAllowed", "InvalidArgument", "InvalidRequest")


class S3Store:
    """See Store; with additional methods for artifacts."""

    def __init__(self, uri: str, connection: S3Connection) -> None:
        """Take the client of this process for the connection.

        Raises:
            ConfigError: the URI is malformed.
            StorageError: no credentials are set.
        """
        self.uri = uri.rstrip("/")
        self.bucket, self.prefix = split_s3(uri)
        self.client = client_for(connection)

    @property
    def num_retries(self) -> int:
        """See Store."""
        return self.client.num_retries

    def put_file(self, path: Path, key: str) -> None:
        """See Store."""
        upload(self._target(key), path)

    def put_entry(self, path: Path, key: str, entry: FileEntry) -> None:
        """Put a file whose size and digest are known; StorageError if it has changed."""
        upload(self._target(key), path, entry)

    def write(self, key: str, pieces: Sequence[bytes | memoryview]) -> FileEntry:
        """See Store; in one request, so for objects that fit into memory a second time."""
        data = b"".join(pieces)
        entry = FileEntry(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        put_bytes(self._target(key), data, entry.sha256)
        return entry

    def put_new(self, key: str, data: bytes) -> bool:
        """Put a small object unless one exists; returns whether it was put.

        A server without conditional writes is asked for the object first: two writers at the same moment may then both
        find none, and the later one wins.
        """
        target, sha256 = self._target(key), hashlib.sha256(data).hexdigest()
        try:
            put_bytes(target, data, sha256, only_new=True)
        except StorageError as error:
            if refusal_of(error) == "PreconditionFailed":
                return False
            if refusal_of(error) not in _NOT_CONDITIONAL:
                raise
            if self.exists(key):
                return False
            put_bytes(target, data, sha256)
        return True

    def get_file(self, key: str, path: Path) -> None:
        """See Store."""
        download(self._target(key), path)

    def get_entry(self, key: str, path: Path, entry: FileEntry) -> None:
        """Copy an object that must have this size and digest; retried a few times if it differs."""
        download(self._target(key), path, entry)

    def read(self, key: str) -> bytes | None:
        """See Store."""
        return read_whole(self._target(key))

    def read_range(self, key: str, offset_bytes: int, length_bytes: int) -> bytes:
        """See Store."""
        data = read_range(self._target(key), offset_bytes, length_bytes)
        return require_length(data, length_bytes, f"{self.uri}/{key}", offset_bytes)

    def exists(self, key: str) -> bool:
        """See Store."""
        return facts_of(self._target(key)) is not None

    def size(self, key: str) -> int | None:
        """Size of an object in bytes; None if there is none."""
        facts = facts_of(self._target(key))
        return None if facts is None else facts.size_bytes

    def read_start(self, key: str, limit_bytes: int) -> tuple[bytes, int] | None:
        """The first `limit_bytes` of an object, or all if it has no more, and its size; None if there is none.

        Raises:
            StorageError: three transfers of a whole object gave other bytes than were recorded at upload.
        """
        return read_start(self._target(key), limit_bytes)

    def copy(self, source: str, key: str) -> None:
        """Copy an object below this root to another key of the bucket, on the server's side.

        Args:
            source: key of the object below the bucket.
            key: where to, below this root.
        """
        target = self._target(key)

        def copy(minio: Any, _: Any) -> None:
            from minio.commonconfig import CopySource

            minio.copy_object(target.bucket, target.name, CopySource(target.bucket, source))

        target.call(copy)

    def newest(self) -> "list[str]":
        """See Store."""
        start = len(self._name(""))
        times: dict[str, Any] = {}

        def page(minio: Any, deadline: Any) -> None:
            for item in minio.list_objects(self.bucket, prefix=self._name(""), recursive=False):
                if not item.is_dir:
                    times[item.object_name[start:]] = item.last_modified
                deadline.check()

        self.client.call(f"{self.uri}/", page)
        return sorted(times, key=lambda name: times[name], reverse=True)

    def list(self, prefix: str = "") -> "list[str]":
        """See Store."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Size of every object by key."""
        return {key: item.size for key, item in self.items(prefix)}

    def items(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Every object (minio's Object) by key; a listing that breaks off resumes after the last key."""
        start = len(self.prefix) + 1 if self.prefix else 0
        found: dict[str, Any] = {}

        def page(minio: Any, deadline: Any) -> None:
            after = next(reversed(found), None)
            for item in minio.list_objects(self.bucket, prefix=self._name(prefix), recursive=True, start_after=after):
                if not item.is_dir:
                    found[item.object_name] = item
                deadline.check()

        self.client.call(f"{self.uri}/{prefix}", page)
        return ((name[start:], item) for name, item in found.items())

    def delete(self, key: str) -> None:
        """See Store."""
        target = self._target(key)
        target.call(lambda minio, _: minio.remove_object(target.bucket, target.name))

    def abort_uploads(self, *, older_than_seconds: float) -> int:
        """Remove the parts that killed writers left below this root; returns the number of uploads.

        Without the right to list uploads, they are left to the bucket's lifecycle rule.
        """
        prefix, count = self._name(""), 0
        with contextlib.suppress(StorageError):
            result = self.client.call(
                f"{self.uri}/", lambda minio, _: minio._list_multipart_uploads(self.bucket, prefix=prefix)
            )
            before = datetime.fromtimestamp(time.time() - older_than_seconds, UTC)
            for item in result.uploads:
                if item.initiated_time is not None and item.initiated_time <= before:
                    abort_upload(
                        S3Object(client=self.client, bucket=self.bucket, name=item.object_name), item.upload_id
                    )
                    count += 1
        return count

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _target(self, key: str) -> S3Object:
        return S3Object(client=self.client, bucket=self.bucket, name=self._name(check_key(key, self.uri)))


def require_length(data: bytes, length_bytes: int, where: str, offset_bytes: int) -> bytes:
    """The bytes, if none is missing.

    Raises:
        StorageError: the object ends earlier.
    """
    if len(data) != length_bytes:
        raise StorageError(
            f"{where}: asked for the bytes {offset_bytes} to {offset_bytes + length_bytes}, got {len(data)}. "
            "The object is truncated. Run the step that makes it again."
        )
    return data
