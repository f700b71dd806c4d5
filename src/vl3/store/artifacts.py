"""Artifacts: folders that appear at a URI complete or not at all, and are verified when read."""

import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vl3.errors import StorageError
from vl3.store.cache import cached_folder
from vl3.store.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    Origin,
    StoredFile,
    check_file,
    list_files,
    manifest_digest,
    parse_manifest,
    verify_folder,
    with_provenance,
    write_manifest,
)
from vl3.store.objects import Store, open_store
from vl3.store.reference import Reference
from vl3.store.s3.artifacts import delete_s3, files_uri_s3, fill_from_s3, is_intact_s3, publish_s3, set_aside_s3
from vl3.store.s3.connection import S3Connection
from vl3.store.uris import scheme_of
from vl3.system.files import atomic_write_bytes, sibling, storage_errors
from vl3.system.folders import remove, scratch_folder
from vl3.system.provenance import provenance
from vl3.system.uris import file_path, file_uri


def publish(
    folder: Path,
    uri: str,
    *,
    kind: str,
    created_by: dict[str, str],
    made_from: Mapping[str, Origin] | None = None,
    stored: Mapping[str, StoredFile] | None = None,
    s3: S3Connection | None = None,
) -> Reference:
    """Publish a folder as the artifact at `uri`; a reader sees all of it or nothing.

    file://: the folder is moved (copied first if it is on another file system) and appears by one rename.
    s3://: the files are uploaded first and manifest.json last, unless another writer's is there by then. `folder` is
    gone afterwards in both cases. If a valid artifact is already there, it is returned and `folder` is dropped. A
    damaged one is moved aside. On s3://, `stored` names files that are in the bucket already: the server copies them.

    Raises:
        StorageError: the folder is empty, or the store cannot be written.
    """
    existing = _valid_at(uri, s3)
    if existing is None:
        sha256 = write_manifest(
            folder, kind=kind, created_by=created_by, made_from=made_from, ran=provenance(), stored=stored
        )
        existing = (
            _publish_file(folder, file_path(uri))
            if scheme_of(uri) == "file"
            else _publish_s3(folder, uri, s3, stored or {})
        )
        existing = existing or Reference(uri=uri, sha256=sha256, kind=kind, created_by=created_by)
    shutil.rmtree(folder, ignore_errors=True)
    return existing


def find(uri: str, s3: S3Connection | None = None) -> Reference | None:
    """The artifact at `uri`, or None if there is none with a valid manifest. Its files are verified by fetch."""
    data = open_store(uri, s3).read(MANIFEST_NAME)
    if data is None:
        return None
    try:
        return parse_reference(uri, data)
    except StorageError:
        return None


def read_manifest(reference: Reference, s3: S3Connection | None = None) -> Manifest:
    """The manifest of an artifact, without its files.

    Raises:
        StorageError: it is missing, or not the one that the reference names.
    """
    return parse_manifest(_manifest_of(reference, open_store(reference.uri, s3)), reference.uri)


def note_provenance(reference: Reference, more: Mapping[str, Any], s3: S3Connection | None = None) -> None:
    """Add to what the manifest of a published artifact says about what ran; the reference stays valid.

    Raises:
        StorageError: the artifact is missing or another one, or the store cannot be written.
    """
    store = open_store(reference.uri, s3)
    data = _manifest_of(reference, store)
    with scratch_folder(None, "manifest") as folder:
        atomic_write_bytes(folder / MANIFEST_NAME, with_provenance(data, more))
        store.put_file(folder / MANIFEST_NAME, MANIFEST_NAME)


def fetch(
    reference: Reference,
    *,
    verified: Collection[str] | None = None,
    cache: Path | None = None,
    s3: S3Connection | None = None,
) -> Path:
    """A verified local folder of the artifact: its own folder (file://) or a copy under `cache` (s3://).

    Processes of one machine share the copy: the first downloads and verifies it, the others wait. It is used until the
    size or time of one of its files changes.

    Args:
        reference: which artifact.
        verified: the files whose bytes are read here, if the reader verifies the others itself; None reads all.
        cache: folder of the copies.
        s3: connection to the store.

    Raises:
        StorageError: it is missing or differs from the reference; the first wrong file is named.
    """
    if scheme_of(reference.uri) == "s3":
        return cached_folder(reference.sha256, fill_from_s3(reference, s3), cache)
    folder = file_path(reference.uri)
    if not folder.is_dir():
        raise StorageError(
            f"{folder}: the {reference.kind} is missing (expected sha256 {reference.sha256}). "
            "Run the step that makes it again."
        )
    if verified is None:
        verify_folder(folder, reference.sha256)
    else:
        for name in verified:
            check_file(folder / name, file_entry(reference, name))
    return folder


def files_uri(reference: Reference) -> str:
    """Where the files of an artifact are, for a reader that takes parts of them and checks what it reads itself."""
    return files_uri_s3(reference) if scheme_of(reference.uri) == "s3" else reference.uri


def fetch_file(reference: Reference, name: str, folder: Path, s3: S3Connection | None = None) -> Path:
    """A verified copy of one file of an artifact, in a folder: a small file of a large artifact.

    Raises:
        StorageError: the artifact is missing or another one, has no such file, or the file is damaged.
    """
    entry, path = file_entry(reference, name, s3), folder / name
    open_store(files_uri(reference), s3).get_file(name, path)
    check_file(path, entry)
    return path


def file_entry(reference: Reference, name: str, s3: S3Connection | None = None) -> FileEntry:
    """Size and digest of one file of an artifact, which is not read.

    Raises:
        StorageError: the artifact is missing or another one, or has no such file.
    """
    entry = read_manifest(reference, s3).files.get(name)
    if entry is None:
        raise StorageError(f"{reference.uri}: the {reference.kind} has no {name}. Run the step that makes it again.")
    return entry


def is_intact(reference: Reference, *, s3: S3Connection | None = None) -> bool:
    """Whether the artifact is there, complete and the one that the reference names.

    file://: every byte is read. s3://: manifest and sizes are compared, no file is downloaded, and a failure of the
    store raises StorageError instead of counting as False.
    """
    if scheme_of(reference.uri) == "s3":
        return is_intact_s3(reference, s3)
    try:
        fetch(reference)
    except StorageError:
        return False
    return True


def delete(uri: str, *, s3: S3Connection | None = None) -> None:
    """Delete the artifact at `uri`, its manifest first: without it the artifact does not exist. No error if missing.

    Raises:
        StorageError: the store refuses or fails.
    """
    if scheme_of(uri) == "s3":
        delete_s3(uri, s3)
        return
    folder = file_path(uri)
    with storage_errors(folder):
        if not folder.is_symlink():  # it may lead to a folder of somebody else
            (folder / MANIFEST_NAME).unlink(missing_ok=True)
        remove(folder)


def _manifest_of(reference: Reference, store: Store) -> bytes:
    data = store.read(MANIFEST_NAME)
    if data is None or manifest_digest(data) != reference.sha256:
        raise StorageError(
            f"{reference.uri}: the {reference.kind} is {'missing' if data is None else 'another one'} (expected sha256 "
            f"{reference.sha256}). Run the step that makes it again."
        )
    return data


def parse_reference(uri: str, data: bytes) -> Reference:
    """The reference of the artifact at `uri`, from the bytes of its manifest.

    Raises:
        StorageError: it is not a valid manifest.
    """
    manifest = parse_manifest(data, uri)
    sha256 = manifest_digest(data)
    return Reference(uri=uri, sha256=sha256, kind=manifest.kind, created_by=manifest.created_by)


def _valid_at(uri: str, s3: S3Connection | None) -> Reference | None:
    reference = find(uri, s3)
    return reference if reference is not None and is_intact(reference, s3=s3) else None


def _publish_s3(folder: Path, uri: str, s3: S3Connection | None, stored: Mapping[str, StoredFile]) -> Reference:
    """Upload the folder; returns the artifact that is there now: another writer's, if that was first."""
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes(), str(folder))
    set_aside_s3(uri, s3)
    return parse_reference(uri, publish_s3(folder, manifest, uri, s3, stored))


def _publish_file(folder: Path, target: Path) -> Reference | None:
    """Rename `folder` to `target`; returns another process's artifact if that was first, otherwise None."""
    staged = sibling(target)
    needed_bytes = sum(path.stat().st_size for path in list_files(folder).values())
    with storage_errors(target, needed_bytes=needed_bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _stage(folder, staged)
            return _rename(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _stage(folder: Path, staged: Path) -> None:
    """Bring the folder to the target's file system and sync it: a rename must not reach the disk before the content."""
    if folder.stat().st_dev == staged.parent.stat().st_dev:
        folder.rename(staged)
    else:
        shutil.copytree(folder, staged)
    for path in (*list_files(staged).values(), staged / MANIFEST_NAME):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _rename(staged: Path, target: Path) -> Reference | None:
    for _ in range(3):
        try:
            staged.rename(target)
        except OSError:
            if not target.exists():
                raise
            first = _valid_at(file_uri(target), None)
            if first is not None:
                return first
            _set_aside(target)
        else:
            return None
    raise StorageError(f"{target}: other processes keep writing there. Give each run its own folder.")


def _set_aside(target: Path) -> None:
    """Move an invalid artifact out of the way, and keep it for inspection."""
    target.rename(target.with_name(f"{target.name}.damaged-{secrets.token_hex(4)}"))
