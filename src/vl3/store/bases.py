"""The pretrained folders that stage 1 starts from, by URI."""

import hashlib
import json
from importlib import resources
from pathlib import Path

from vl3.config.part import split_hub
from vl3.errors import ConfigError, StorageError
from vl3.store.artifacts import fetch, find
from vl3.store.hub import hub_folder
from vl3.store.manifest import file_sha256
from vl3.store.uris import check_key
from vl3.system.uris import file_path

_SCHEMES = "package://<package>/<path>, file:///absolute/folder, s3://bucket/key or hf://owner/name@revision"


def base_folder(uri: str) -> Path:
    """The local folder of a base.

    Args:
        uri: package:// (a folder inside an installed package), file://, s3:// (a published artifact) or hf://.

    Raises:
        ConfigError: the scheme is unknown or the folder does not exist.
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
        reference = find(uri)
        if reference is None:
            raise StorageError(f"{uri}: there is no artifact with a valid manifest. Publish the base first.")
        return fetch(reference)
    raise ConfigError(f"base {uri!r} has no scheme, or an unknown one. Use {_SCHEMES}.")


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) over the names and digests of every file of a folder (links followed: hubs cache that way)."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


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
