"""The pretrained folders that stage 1 starts from, by URI."""

import hashlib
import json
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from vl3.config.part import split_hub
from vl3.errors import ConfigError, StorageError
from vl3.store.artifacts import fetch, find
from vl3.store.hub import hub_folder
from vl3.store.manifest import file_sha256
from vl3.store.uris import file_path

_SCHEMES = "package://<package>/<path>, file:///absolute/folder, s3://bucket/key or hf://owner/name@revision"


def base_folder(uri: str) -> Path:
    """The local folder of a base.

    Args:
        uri: package:// (a folder inside an installed package), file://, s3:// (a published artifact) or hf://.

    Raises:
        ConfigError: the scheme is unknown or the folder does not exist.
        StorageError: the base cannot be downloaded.
    """
    parts = urlsplit(uri)
    if parts.scheme == "package":
        return _require_folder(_package_folder(parts.netloc, parts.path.strip("/"), uri), uri)
    if parts.scheme == "file":
        return _require_folder(file_path(uri), uri)
    if parts.scheme == "hf":
        return hub_folder(*split_hub(uri))
    if parts.scheme == "s3":
        reference = find(uri)
        if reference is None:
            raise StorageError(f"{uri}: there is no artifact with a valid manifest. Publish the base first.")
        return fetch(reference)
    raise ConfigError(f"base {uri!r} has an unknown scheme {parts.scheme!r}. Use {_SCHEMES}.")


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) over the names and digests of every file of a folder (links followed: hubs cache that way)."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _package_folder(package: str, path: str, uri: str) -> Path:
    try:
        return Path(str(resources.files(package).joinpath(path)))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"base {uri!r} names the package {package!r}, which is not installed. Use {_SCHEMES}."
        ) from error


def _require_folder(folder: Path, uri: str) -> Path:
    if not folder.is_dir():
        raise ConfigError(
            f"base {uri!r}: the folder {folder} does not exist. Create it with `vl3 base make` or correct the URI."
        )
    return folder
