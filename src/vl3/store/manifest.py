"""The manifest of an artifact: every file with its size and SHA-256. Without a valid one an artifact does not exist.

An artifact's digest is that of its manifest without `provenance`, so equal content has the same digest on every machine
and after every commit:

    {"created_by": {...}, "files": {...}, "format": 1, "kind": "checkpoint",   the digest is over these
     "provenance": {"commit": "1b9c...", "machine": {"host": "desk", ...}}}    and not over this, which decides nothing
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vl3.errors import ConfigError, StorageError
from vl3.store.uris import check_key
from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_bytes, read_plain, storage_errors

MANIFEST_NAME = "manifest.json"
_FORMAT = 1

Origin = dict[str, str]
"""An artifact that another was made from: uri, sha256 and kind."""
_ORIGIN_FIELDS = {"uri", "sha256", "kind"}
_PROVENANCE = "provenance"
_REMEDY = "The artifact cannot be trusted. Delete its folder and run the step that makes it again."


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """One file of an artifact."""

    size_bytes: int
    """Length of the file."""
    sha256: str
    """SHA-256 (hex) of its bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file that is in the store already, from where a published artifact copies it."""

    key: str
    """Its whole key in the bucket of the artifact."""
    entry: FileEntry
    """Its size and digest, known from when it was stored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What manifest.json holds."""

    kind: str
    """Kind of the artifact."""
    created_by: dict[str, str]
    """Who made it."""
    files: dict[str, FileEntry]
    """Every file by its path relative to the folder, with forward slashes."""
    made_from: dict[str, Origin] = field(default_factory=dict)
    """The artifacts that it was made from, by their role; empty if they need not be found again."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What ran when it was published (vl3.system.provenance), for people: anybody may have written it."""


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_digest(data: bytes) -> str:
    """The digest (SHA-256, hex) of the artifact with this manifest: of its bytes as they are without `provenance`.

    Of bytes that are no manifest it is simply their own, which is that of no artifact.
    """
    try:
        body = parse_object(data)
    except ValueError:
        body = {}
    if _PROVENANCE in body:
        del body[_PROVENANCE]
        data = _as_bytes(body)
    return hashlib.sha256(data).hexdigest()


def with_provenance(data: bytes, more: Mapping[str, Any]) -> bytes:
    """A manifest's bytes with more facts about what ran; the artifact's digest stays the same.

    Raises:
        StorageError: it is not a manifest.
    """
    manifest = parse_manifest(data, MANIFEST_NAME)
    return _as_bytes({**parse_object(data), _PROVENANCE: {**manifest.provenance, **more}})


def _as_bytes(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_manifest(
    folder: Path,
    *,
    kind: str,
    created_by: dict[str, str],
    made_from: Mapping[str, Origin] | None = None,
    ran: Mapping[str, Any] | None = None,
    stored: Mapping[str, StoredFile] | None = None,
) -> str:
    """Hash every file under `folder` and write manifest.json last.

    Args:
        folder: the artifact's files.
        kind: what it is.
        created_by: who made it.
        made_from: the artifacts that it was made from, by their role.
        ran: what runs (vl3.system.provenance).
        stored: more files of the artifact, by name, which are not in the folder.

    Returns:
        The artifact's digest (see manifest_digest).

    Raises:
        StorageError: the folder has a symbolic link or no file, or the manifest cannot be written.
    """
    with storage_errors(folder):
        files = {
            name: {"size_bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for name, path in list_files(folder).items()
        }
    files |= {name: asdict(file.entry) for name, file in (stored or {}).items()}
    files = dict(sorted(files.items()))
    if not files:
        raise StorageError(f"{folder}: there is no file to publish as a {kind}. The step that wrote it has a bug.")
    body: dict[str, Any] = {"format": _FORMAT, "kind": kind, "created_by": created_by, "files": files}
    if made_from:
        body["made_from"] = dict(made_from)
    if ran:
        body[_PROVENANCE] = dict(ran)
    data = _as_bytes(body)
    atomic_write_bytes(folder / MANIFEST_NAME, data)
    return manifest_digest(data)


def list_files(folder: Path) -> dict[str, Path]:
    """Every file under `folder` except the manifest, by relative path, sorted.

    Raises:
        StorageError: an entry is neither a plain file nor a folder.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise StorageError(
                f"{path}: an artifact may only contain plain files. Replace it with a copy of its content."
            )
        if path.is_file() and name != MANIFEST_NAME:
            found[name] = path
    return found


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest's bytes.

    Raises:
        StorageError: it is not a manifest, or names a path outside of the artifact.
    """
    try:
        body = parse_object(data)
        files = {name: FileEntry(**entry) for name, entry in body["files"].items()}
        made_from = {name: _origin(entry) for name, entry in body.get("made_from", {}).items()}
        manifest = Manifest(
            kind=body["kind"],
            created_by=body["created_by"],
            files=files,
            made_from=made_from,
            provenance=dict(body.get(_PROVENANCE, {})),
        )
        _check_types(manifest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{where}: not a valid manifest ({type(error).__name__}: {error}). {_REMEDY}") from error
    for name in manifest.files:
        try:
            check_key(name, where)
        except ConfigError as error:
            raise StorageError(f"{where}: names {name!r}, which is outside the artifact. {_REMEDY}") from error
    return manifest


def _origin(entry: Any) -> Origin:
    if (
        not isinstance(entry, dict)
        or set(entry) != _ORIGIN_FIELDS
        or not all(isinstance(v, str) for v in entry.values())
    ):
        raise TypeError(f"made_from holds {entry!r:.200}, which is not uri, sha256 and kind")
    return entry


def _check_types(manifest: Manifest) -> None:
    """Raise ValueError for a value of the wrong type."""
    sizes = [entry.size_bytes for entry in manifest.files.values()]
    texts = [manifest.kind, *manifest.created_by.values(), *(entry.sha256 for entry in manifest.files.values())]
    if not all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63 for size in sizes):
        raise ValueError("the size of a file is not a number of bytes")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("its kind, its maker or a digest is not text")


def verify_folder(folder: Path, sha256: str) -> None:
    """Check a folder against its manifest, and the manifest against its digest.

    Raises:
        StorageError: names the first file that is missing, surplus, truncated or damaged, with both digests.
    """
    path = folder / MANIFEST_NAME
    try:
        data = read_plain(path)
    except OSError as error:
        raise StorageError(f"{path}: the manifest cannot be read ({error.strerror}). {_REMEDY}") from error
    found = manifest_digest(data)
    if found != sha256:
        raise StorageError(
            f"{path}: the manifest is not the one referred to (sha256 {found}, expected {sha256}). {_REMEDY}"
        )
    manifest, present = parse_manifest(data, str(path)), list_files(folder)
    for name, entry in manifest.files.items():
        if name not in present:
            raise StorageError(f"{folder / name}: the file is missing (expected sha256 {entry.sha256}). {_REMEDY}")
        check_file(present[name], entry)
    for name in present:
        if name not in manifest.files:
            surplus = file_sha256(present[name])
            raise StorageError(f"{present[name]}: a surplus file, not in the manifest (sha256 {surplus}). {_REMEDY}")


def check_file(path: Path, entry: FileEntry) -> None:
    """Check one file's size and digest.

    Raises:
        StorageError: it is truncated, too long or damaged.
    """
    try:
        size_bytes, found = path.stat().st_size, file_sha256(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}). {_REMEDY}") from error
    if size_bytes != entry.size_bytes:
        raise StorageError(
            f"{path}: has {size_bytes} bytes and should have {entry.size_bytes} "
            f"(sha256 {found}, expected {entry.sha256}). {_REMEDY}"
        )
    if found != entry.sha256:
        raise StorageError(f"{path}: is damaged (sha256 {found}, expected {entry.sha256}). {_REMEDY}")
