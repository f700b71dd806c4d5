"""The pretrained folders that stage 1 starts from: where they come from, and where a run keeps them.

The step `import-start` brings both into the artifacts of the run, beside the start artifact that names them by the
digest of their files. Whoever needs one reads it from there, verified, and never asks the hub:

    steps/import-start/KEY/start            bases.json: {"vision_base": "8d1f...", ...}, tokenizer.json
    steps/import-start/KEY/vision_base      config.json, model.safetensors, manifest.json
    steps/import-start/KEY/language_base
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from vl3.config.part import split_hub
from vl3.errors import ConfigError, DataError, StorageError
from vl3.store.artifacts import fetch, fetch_file, find, parse_reference, read_manifest
from vl3.store.folders import fetch_folder
from vl3.store.hub import MODEL_FILES, hub_folder
from vl3.store.manifest import MANIFEST_NAME, file_sha256
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.store.uris import check_key, join_uri
from vl3.system.documents import parse_object
from vl3.system.files import storage_errors
from vl3.system.folders import scratch_folder
from vl3.system.uris import file_path

VISION, LANGUAGE = "vision_base", "language_base"
"""Names of the two bases: fields of the recipe's `model`, and artifacts beside the start artifact."""
BASES_FILE = "bases.json"
"""File of the start artifact: the digest of each base. The language base's tokenizer.json is beside it."""
BASE = "base"
"""Kind of the artifact of a base."""
_SCHEMES = "package://<package>/<path>, file:///absolute/folder, s3://bucket/key or hf://owner/name@revision"
_LINKED_BYTES = 64 * 2**20


def base_folder(uri: str) -> Path:
    """The local folder of a base, wherever it is.

    Args:
        uri: package:// (a folder inside an installed package), file://, s3:// (plain files or an artifact) or hf://.

    Raises:
        ConfigError: the scheme is unknown, the folder does not exist, or the hub has no such model.
        StorageError: the base cannot be downloaded.
    """
    scheme, separator, name = uri.partition("://")
    if scheme == "package" and separator:
        package, _, path = name.partition("/")
        return _require_folder(_package_folder(package, path.strip("/"), uri), uri)
    if scheme == "file":
        return _require_folder(file_path(uri), uri)
    if scheme == "hf" and separator:
        return hub_folder(*split_hub(uri))
    if scheme == "s3":
        return _bucket_folder(uri)
    raise ConfigError(f"base {uri!r} has no scheme, or an unknown one. Use {_SCHEMES}.")


def copy_model_files(source: Path, target: Path) -> None:
    """Copy the files of a model that count (see MODEL_FILES) into a folder; a large one on the same disk is linked.

    Raises:
        StorageError: a file cannot be read or written.
    """
    for name, path in model_files(source).items():
        with storage_errors(target / name):
            _link_or_copy(path.resolve(), target / name)


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model folder that count, by name: config, tokenizer, safetensors."""
    found = {path.name: path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()}
    found.pop(MANIFEST_NAME, None)
    return dict(sorted(found.items()))


def files_digest(digests: Mapping[str, str]) -> str:
    """SHA-256 (hex) over names and digests of files."""
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) over names and digests of a model's files; other files and folders beside them do not count."""
    return files_digest({name: file_sha256(path) for name, path in model_files(folder).items()})


def base_digest(base: Reference) -> str:
    """The digest of a published base: that of its files, wherever it was published and came from.

    Raises:
        StorageError: it is missing or another one.
    """
    return files_digest({name: entry.sha256 for name, entry in read_manifest(base).files.items()})


def fetch_base(start: Reference, name: str) -> Path:
    """The verified folder of a base that a run has imported.

    Args:
        start: the start artifact of the run.
        name: VISION or LANGUAGE.

    Raises:
        StorageError: it is missing, damaged, or not the one that the start artifact names.
    """
    with scratch_folder(None, "start") as folder:
        expected = parse_object(fetch_file(start, BASES_FILE, folder).read_bytes()).get(name)
    uri = join_uri(start.uri.rpartition("/")[0], name)
    base = find(uri)
    found = None if base is None else base_digest(base)
    if base is None or found != expected:
        raise StorageError(
            f"{uri}: the base that {start.uri} names is {'missing' if base is None else 'another one'} (digest of its "
            f"files {found}, expected {expected}). Run the workflow again: import-start brings it."
        )
    return fetch(base)


def _bucket_folder(uri: str) -> Path:
    """A base in a bucket: an artifact, which is verified, or plain files."""
    manifest = open_store(uri).read(MANIFEST_NAME)
    if manifest is not None:
        return fetch(parse_reference(uri, manifest))
    try:
        return fetch_folder(uri)
    except DataError as error:
        raise ConfigError(
            f"{uri}: there is no base ({error}). Upload the folder of a model, or bring it with `vl3 base import`."
        ) from error


def _link_or_copy(source: Path, target: Path) -> None:
    if source.stat().st_size >= _LINKED_BYTES:
        try:
            os.link(source, target)
        except OSError:  # another disk
            pass
        else:
            return
    shutil.copyfile(source, target)


def _package_folder(package: str, path: str, uri: str) -> Path:
    try:
        return Path(str(resources.files(package).joinpath(check_key(path, uri))))
    except (ModuleNotFoundError, TypeError, ValueError) as error:  # missing, a module and no package, or no name
        raise ConfigError(
            f"base {uri!r} names the package {package!r}, which is not installed. Use {_SCHEMES}."
        ) from error


def _require_folder(folder: Path, uri: str) -> Path:
    if not folder.is_dir():
        raise ConfigError(
            f"base {uri!r}: the folder {folder} does not exist. Create it with `vl3 base make` or correct the URI."
        )
    return folder
