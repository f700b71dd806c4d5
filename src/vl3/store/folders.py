"""Local copies of folders that other programs put into a bucket (annotations and media)."""

import hashlib
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vl3.errors import ConfigError, DataError
from vl3.store.cache import cached_folder
from vl3.store.objects import open_s3
from vl3.store.s3.connection import S3Connection
from vl3.store.s3.store import S3Store
from vl3.store.s3.transfer import in_parallel
from vl3.store.uris import check_key, scheme_of
from vl3.system.files import require_space, storage_errors
from vl3.system.uris import file_path

_FILES_AT_ONCE = 8


def folder_digest_s3(uri: str, s3: S3Connection | None = None) -> str:
    """Digest (hex) over key, size and entity tag of every object below an s3:// URI; nothing is downloaded.

    Raises:
        DataError: there is no object, or a key would leave the folder.
    """
    return _digest(_listed(open_s3(uri, s3)))


def fetch_folder(uri: str, *, cache: Path | None = None, s3: S3Connection | None = None) -> Path:
    """The local folder of a URI: itself (file://), or a copy of all objects below it (s3://).

    The copy is made again when an object was added, changed or removed. Times are those of the objects.

    Raises:
        DataError: there is no object, or a key would leave the folder.
        StorageError: the store fails or the disk is full.
    """
    if scheme_of(uri) == "file":
        return file_path(uri)
    store = open_s3(uri, s3)
    objects = _listed(store)

    def fill(folder: Path) -> None:
        size_bytes = sum(item.size for item in objects.values())
        require_space(folder, size_bytes, purpose=f"to download {uri}")
        in_parallel(
            (partial(_bring, store, key, item, folder) for key, item in objects.items()), workers=_FILES_AT_ONCE
        )

    return cached_folder(f"folder-{_digest(objects)}", fill, cache)


def _bring(store: S3Store, key: str, item: Any, folder: Path) -> None:
    path = folder / key
    store.get_file(key, path)
    with storage_errors(path):
        os.utime(path, (item.last_modified.timestamp(),) * 2)


def _listed(store: S3Store) -> dict[str, Any]:
    objects = dict(_checked(store))
    if not objects:
        raise DataError(f"{store.uri}: contains no objects. Correct the URI, or upload annotations and media there.")
    return objects


def _checked(store: S3Store) -> Iterator[tuple[str, Any]]:
    """Every object that is a file; keys that end with `/` are empty objects with which some programs mark folders."""
    names = set()
    for key, item in store.items():
        if key.endswith("/") or not key:
            continue
        try:
            names.add(check_key(key, store.uri))
        except ConfigError as error:
            raise DataError(f"{error} A copy of the object would be outside the local folder.") from error
        yield key, item
    for name in names:
        parent = name.rpartition("/")[0]
        if parent in names:
            raise DataError(f"{store.uri}/{parent}: is both an object and the folder of {name!r}. Rename one of them.")


def _digest(objects: dict[str, Any]) -> str:
    facts = [[key, item.size, item.etag] for key, item in sorted(objects.items())]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
