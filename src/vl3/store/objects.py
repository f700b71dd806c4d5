"""One small interface over files and S3 objects. This module is the only importer of minio."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from vl3.errors import StorageError
from vl3.store.uris import file_path, scheme_of, split_s3
from vl3.store.writing import storage_errors


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Connection:
    """How to reach an S3 service."""

    endpoint: str = "https://s3.amazonaws.com"
    """Address of the service, http:// or https://."""
    access_key: str | None = None
    """Key of the account; None leaves credentials to the client's own chain (environment, files, instance role)."""
    secret_key: str | None = None
    """Secret of the account."""
    region: str | None = None
    """Region of the bucket, if the service needs it."""


class Store(Protocol):
    """Objects under one root, by key (a relative path with forward slashes)."""

    def put_file(self, path: Path, key: str) -> None:
        """Copy a local file into the store; a reader never sees half of it."""

    def get_file(self, key: str, path: Path) -> None:
        """Copy an object to a local file. StorageError when it is missing."""

    def read_range(self, key: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Bytes of an object from an offset. StorageError when there are fewer."""

    def exists(self, key: str) -> bool:
        """Whether the object exists."""

    def list(self, prefix: str = "") -> "list[str]":
        """Keys that begin with prefix, sorted."""

    def delete(self, key: str) -> None:
        """Remove an object; no error when it is missing."""


def open_store(uri: str, s3: S3Connection | None = None) -> Store:
    """The store rooted at a file:// or s3:// URI.

    Raises:
        ConfigError: the URI has another scheme.
    """
    if scheme_of(uri) == "file":
        return FileStore(file_path(uri))
    return S3Store(uri, s3 or S3Connection())


class FileStore:
    """A folder as a store."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_file(self, path: Path, key: str) -> None:
        """See Store."""
        target = self.root / key
        temporary = target.with_name(f".{target.name}.tmp")
        with storage_errors(target, needed_bytes=path.stat().st_size):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def get_file(self, key: str, path: Path) -> None:
        """See Store."""
        source = self._existing(key)
        with storage_errors(path, needed_bytes=source.stat().st_size):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)

    def read_range(self, key: str, offset_bytes: int, length_bytes: int) -> bytes:
        """See Store."""
        with self._existing(key).open("rb") as file:
            file.seek(offset_bytes)
            return _require_length(file.read(length_bytes), length_bytes, f"{self.root / key}", offset_bytes)

    def exists(self, key: str) -> bool:
        """See Store."""
        return (self.root / key).is_file()

    def list(self, prefix: str = "") -> "list[str]":
        """See Store."""
        keys = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return sorted(key for key in keys if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """See Store."""
        with storage_errors(self.root / key):
            (self.root / key).unlink(missing_ok=True)

    def _existing(self, key: str) -> Path:
        path = self.root / key
        if not path.is_file():
            raise StorageError(f"{path}: the object is missing. Run the step that makes it again.")
        return path


class S3Store:
    """A key prefix of an S3 bucket as a store."""

    def __init__(self, uri: str, connection: S3Connection) -> None:
        self.uri = uri.rstrip("/")
        self.bucket, self.prefix = split_s3(uri)
        self._client = _connect(connection)

    def put_file(self, path: Path, key: str) -> None:
        """See Store."""
        with self._errors(key):
            self._client.fput_object(self.bucket, self._name(key), str(path))

    def get_file(self, key: str, path: Path) -> None:
        """See Store."""
        with self._errors(key):
            self._client.fget_object(self.bucket, self._name(key), str(path))

    def read_range(self, key: str, offset_bytes: int, length_bytes: int) -> bytes:
        """See Store."""
        with self._errors(key):
            response = self._client.get_object(self.bucket, self._name(key), offset=offset_bytes, length=length_bytes)
            try:
                data = response.read()
            finally:
                response.close()
                response.release_conn()
        return _require_length(data, length_bytes, f"{self.uri}/{key}", offset_bytes)

    def exists(self, key: str) -> bool:
        """See Store."""
        from minio.error import S3Error

        with self._errors(key):
            try:
                self._client.stat_object(self.bucket, self._name(key))
            except S3Error as error:
                if error.code in ("NoSuchKey", "NoSuchObject"):
                    return False
                raise
        return True

    def list(self, prefix: str = "") -> "list[str]":
        """See Store."""
        with self._errors(prefix):
            found = self._client.list_objects(self.bucket, prefix=self._name(prefix), recursive=True)
            start = len(self.prefix) + 1 if self.prefix else 0
            return sorted(item.object_name[start:] for item in found)

    def delete(self, key: str) -> None:
        """See Store."""
        with self._errors(key):
            self._client.remove_object(self.bucket, self._name(key))

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        from minio.error import MinioException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (MinioException, HTTPError) as error:
            raise StorageError(
                f"{self.uri}/{key}: the object store refused or failed ({error}). "
                "Check the endpoint, the bucket and the credentials, then run again."
            ) from error


def _connect(connection: S3Connection) -> Any:
    from minio import Minio
    from minio.credentials import AWSConfigProvider, ChainedProvider, EnvAWSProvider, IamAwsProvider

    parts = urlsplit(connection.endpoint)
    given = connection.access_key is not None
    chain = None if given else ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider()])
    return Minio(
        parts.netloc,
        access_key=connection.access_key,
        secret_key=connection.secret_key,
        secure=parts.scheme == "https",
        region=connection.region,
        credentials=chain,
    )


def _require_length(data: bytes, length_bytes: int, where: str, offset_bytes: int) -> bytes:
    if len(data) != length_bytes:
        raise StorageError(
            f"{where}: bytes {offset_bytes} to {offset_bytes + length_bytes} were asked for and {len(data)} are there. "
            "The object is truncated. Run the step that makes it again."
        )
    return data
