"""Artifacts on S3: files first, in a folder named after the manifest's digest; manifest.json last, if none is there.

So two writers of one URI never write different bytes to the same key, one manifest wins, and every reader sees one
complete artifact. What a killed writer leaves has no manifest, so it is not an artifact:

    s3://bucket/run/video/0123456789abcdef/model.safetensors   of the writer that was first
    s3://bucket/run/video/manifest.json                        its manifest; sha256 0123456789abcdef...
    s3://bucket/run/video/fedcba9876543210/model.safetensors   of a writer that came second or was killed
"""

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from vl3.errors import StorageError
from vl3.store.manifest import MANIFEST_NAME, FileEntry, Manifest, StoredFile, manifest_digest, parse_manifest
from vl3.store.objects import open_s3
from vl3.store.reference import Reference
from vl3.store.s3.connection import S3Connection
from vl3.store.s3.store import S3Store
from vl3.store.s3.transfer import in_parallel
from vl3.store.uris import join_uri
from vl3.system.files import atomic_write_bytes, require_space

log = logging.getLogger(__name__)

_PLACE_CHARACTERS = 16
_SMALL_BYTES = 4 * 2**20
_SMALL_FILES_AT_ONCE = 8
_STALE_SECONDS = 24 * 3600.0
_FILE_REMEDY = "Delete the artifact, its manifest.json first, and run the step that makes it again."


def publish_s3(
    folder: Path, manifest: Manifest, uri: str, s3: S3Connection | None, stored: Mapping[str, StoredFile]
) -> bytes:
    """Upload a folder with its manifest.json; returns the bytes of the manifest that is at the URI afterwards.

    Files that are in the bucket already (`stored`) are copied by the server.

    Raises:
        StorageError: the store refuses or fails; readers see nothing of the upload.
    """
    store, data = open_s3(uri, s3), (folder / MANIFEST_NAME).read_bytes()
    store.abort_uploads(older_than_seconds=_STALE_SECONDS)
    place = _place(data)
    local = replace(manifest, files={name: entry for name, entry in manifest.files.items() if name not in stored})
    _transfer(local, lambda name, entry: store.put_entry(folder / name, f"{place}/{name}", entry))
    copies = (partial(store.copy, file.key, f"{place}/{name}") for name, file in stored.items())
    in_parallel(copies, workers=_SMALL_FILES_AT_ONCE)
    if stored and not _is_complete(store, data):
        raise StorageError(
            f"{uri}: files that were stored before have another size after the server has copied them. Delete {place} "
            "there, check the server, and run the step again."
        )
    is_first = store.put_new(MANIFEST_NAME, data)
    standing = store.read(MANIFEST_NAME)  # a put that was retried after a lost answer finds its own manifest
    if standing is None:
        raise StorageError(
            f"{uri}: the manifest was uploaded and is gone, so another process is deleting there. Stop it and run the "
            "step again."
        )
    if not is_first and _place(standing) != place:
        log.info("%s: another writer was first; using its artifact", uri)
        _delete_all(store, f"{place}/")
    return standing


def set_aside_s3(uri: str, s3: S3Connection | None) -> None:
    """Rename the manifest of a damaged artifact, so that a new one can be published.

    Checks again whether the artifact is damaged: another writer may have published since the caller checked.
    """
    store = open_s3(uri, s3)
    data = store.read(MANIFEST_NAME)
    if data is None or _is_complete(store, data):
        return
    store.put_new(f"manifest.damaged-{secrets.token_hex(4)}.json", data)
    store.delete(MANIFEST_NAME)
    log.warning("%s: the artifact there is damaged; its manifest was renamed to manifest.damaged-*.json", uri)


def is_intact_s3(reference: Reference, s3: S3Connection | None) -> bool:
    """Whether the manifest is the one in the reference and every file is there with its size.

    Two requests, no download: the content was verified at upload, and every fetch verifies it again.
    """
    store = open_s3(reference.uri, s3)
    data = store.read(MANIFEST_NAME)
    return data is not None and manifest_digest(data) == reference.sha256 and _is_complete(store, data)


def fill_from_s3(reference: Reference, s3: S3Connection | None) -> Callable[[Path], None]:
    """A function that puts an artifact's verified files into an empty folder.

    Raises:
        StorageError: in the returned function: the artifact is missing, another one or damaged, or the disk is full.
    """

    def fill(folder: Path) -> None:
        store = open_s3(reference.uri, s3)
        data = store.read(MANIFEST_NAME)
        if data is None:
            raise StorageError(
                f"{reference.uri}: the {reference.kind} is missing (expected sha256 {reference.sha256}). "
                "Run the step that makes it again."
            )
        found = manifest_digest(data)
        if found != reference.sha256:
            raise StorageError(
                f"{reference.uri}/{MANIFEST_NAME}: the manifest is not the one referred to (sha256 {found}, "
                f"expected {reference.sha256}). {_FILE_REMEDY}"
            )
        manifest, place = parse_manifest(data, reference.uri), _place(data)
        size_bytes = sum(entry.size_bytes for entry in manifest.files.values())
        require_space(folder, size_bytes, purpose=f"to download {reference.uri}")
        _transfer(manifest, lambda name, entry: store.get_entry(f"{place}/{name}", folder / name, entry))
        atomic_write_bytes(folder / MANIFEST_NAME, data)

    return fill


def files_uri_s3(reference: Reference) -> str:
    """The folder of an artifact's files."""
    return join_uri(reference.uri, reference.sha256[:_PLACE_CHARACTERS])


def delete_s3(uri: str, s3: S3Connection | None) -> None:
    """Delete an artifact, its manifest first: without it the artifact does not exist."""
    store = open_s3(uri, s3)
    store.delete(MANIFEST_NAME)
    _delete_all(store, "")
    store.abort_uploads(older_than_seconds=0)


def _is_complete(store: S3Store, data: bytes) -> bool:
    """Whether every file that a manifest names is there with its size."""
    try:
        manifest = parse_manifest(data, store.uri)
    except StorageError:
        return False
    place = _place(data)
    expected = {f"{place}/{name}": entry.size_bytes for name, entry in manifest.files.items()}
    return store.sizes(f"{place}/") == expected


def _place(manifest: bytes) -> str:
    """The folder of an artifact's files, relative to its URI."""
    return manifest_digest(manifest)[:_PLACE_CHARACTERS]


def _transfer(manifest: Manifest, move: Callable[[str, FileEntry], None]) -> None:
    """Move every file: small ones in parallel, large ones one by one, because each is moved in parallel parts."""
    small = {name: entry for name, entry in manifest.files.items() if entry.size_bytes <= _SMALL_BYTES}
    in_parallel((partial(move, name, entry) for name, entry in small.items()), workers=_SMALL_FILES_AT_ONCE)
    for name, entry in manifest.files.items():
        if name not in small:
            move(name, entry)


def _delete_all(store: S3Store, prefix: str) -> None:
    in_parallel((partial(store.delete, key) for key in store.list(prefix)), workers=_SMALL_FILES_AT_ONCE)
