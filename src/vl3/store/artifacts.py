"""Artifacts: folders that appear whole or not at all, at a URI, and are verified when read."""

import hashlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from vl3.errors import StorageError
from vl3.store.manifest import (
    MANIFEST_NAME,
    check_file,
    list_files,
    parse_manifest,
    verify_folder,
    write_manifest,
)
from vl3.store.objects import S3Connection, open_store
from vl3.store.reference import Reference
from vl3.store.uris import file_path, scheme_of
from vl3.store.writing import storage_errors


def publish(
    folder: Path, uri: str, *, kind: str, created_by: dict[str, str], s3: S3Connection | None = None
) -> Reference:
    """Publish a folder as the artifact at `uri`, in one step for every reader.

    file://: the folder is moved (copied first from another file system) and appears by one rename.
    s3://: the files are put first and manifest.json last. The folder is consumed in both cases. An artifact that is
    already there and valid wins: it is returned, and `folder` is dropped. One that is damaged is moved aside.

    Raises:
        StorageError: the folder is empty, or the store cannot be written.
    """
    existing = _valid_at(uri, s3)
    if existing is None:
        sha256 = write_manifest(folder, kind=kind, created_by=created_by)
        if scheme_of(uri) == "file":
            existing = _publish_file(folder, file_path(uri))
        else:
            _publish_s3(folder, uri, s3)
        existing = existing or Reference(uri=uri, sha256=sha256, kind=kind, created_by=created_by)
    shutil.rmtree(folder, ignore_errors=True)
    return existing


def find(uri: str, s3: S3Connection | None = None) -> Reference | None:
    """The artifact at `uri`, or None if there is none with a valid manifest. Its files are verified by fetch."""
    data = _manifest_bytes(uri, s3)
    if data is None:
        return None
    try:
        manifest = parse_manifest(data, uri)
    except StorageError:
        return None
    sha256 = hashlib.sha256(data).hexdigest()
    return Reference(uri=uri, sha256=sha256, kind=manifest.kind, created_by=manifest.created_by)


def fetch(reference: Reference, *, cache: Path | None = None, s3: S3Connection | None = None) -> Path:
    """A verified local folder of the artifact: its own folder (file://) or a copy under `cache` (s3://).

    Raises:
        StorageError: it is missing or differs from the reference; the first wrong file is named.
    """
    if scheme_of(reference.uri) == "file":
        folder = file_path(reference.uri)
        if not folder.is_dir():
            raise StorageError(
                f"{folder}: the {reference.kind} is missing (expected sha256 {reference.sha256}). "
                "Run the step that makes it again."
            )
    else:
        folder = (cache or Path(tempfile.gettempdir()) / f"vl3-cache-{os.getuid()}") / reference.sha256
        if not folder.is_dir():
            _download(reference, folder, s3)
    verify_folder(folder, reference.sha256)
    return folder


def is_intact(reference: Reference, *, cache: Path | None = None, s3: S3Connection | None = None) -> bool:
    """Whether the artifact is there, whole and the one referred to."""
    try:
        fetch(reference, cache=cache, s3=s3)
    except StorageError:
        return False
    return True


def _valid_at(uri: str, s3: S3Connection | None) -> Reference | None:
    reference = find(uri, s3)
    if reference is None or (scheme_of(uri) == "file" and not is_intact(reference)):
        return None
    return reference


def _manifest_bytes(uri: str, s3: S3Connection | None) -> bytes | None:
    if scheme_of(uri) == "file":
        path = file_path(uri) / MANIFEST_NAME
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"{path}: cannot be read ({error.strerror}). Correct its permissions.") from error
    store = open_store(uri, s3)
    if not store.exists(MANIFEST_NAME):
        return None
    with tempfile.TemporaryDirectory() as temporary:
        store.get_file(MANIFEST_NAME, Path(temporary) / MANIFEST_NAME)
        return (Path(temporary) / MANIFEST_NAME).read_bytes()


def _publish_file(folder: Path, target: Path) -> Reference | None:
    """Rename `folder` to `target`; returns the artifact of another process that was first, if one was."""
    staged = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    needed_bytes = sum(path.stat().st_size for path in list_files(folder).values())
    with storage_errors(target, needed_bytes=needed_bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _stage(folder, staged)
            return _rename(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _stage(folder: Path, staged: Path) -> None:
    """Bring the folder onto the target's file system and to the disk: a rename must not outlive its content."""
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
            first = _valid_at(target.as_uri(), None)
            if first is not None:
                return first
            _set_aside(target)
        else:
            return None
    raise StorageError(f"{target}: other processes keep writing there. Give each run a folder of its own.")


def _set_aside(target: Path) -> None:
    """Move what lies at a published place without being valid out of the way, and keep it for inspection."""
    target.rename(target.with_name(f"{target.name}.damaged-{secrets.token_hex(4)}"))


def _publish_s3(folder: Path, uri: str, s3: S3Connection | None) -> None:
    store = open_store(uri, s3)
    for name, path in list_files(folder).items():
        store.put_file(path, name)
    store.put_file(folder / MANIFEST_NAME, MANIFEST_NAME)


def _download(reference: Reference, folder: Path, s3: S3Connection | None) -> None:
    staged = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    store = open_store(reference.uri, s3)
    with storage_errors(folder):
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
    try:
        store.get_file(MANIFEST_NAME, staged / MANIFEST_NAME)
        manifest = parse_manifest((staged / MANIFEST_NAME).read_bytes(), reference.uri)
        for name, entry in manifest.files.items():
            store.get_file(name, staged / name)
            check_file(staged / name, entry)
        with storage_errors(folder):
            if not folder.is_dir():
                staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
