"""Models of the Hugging Face hub, or of a server with its interface (HF_ENDPOINT, HF_TOKEN).

A model is brought file by file. A file that was cut goes on where it was, one that is there is not fetched again, and
the digest of each is compared with the one that the hub names. Only what a model needs is fetched.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from vl3.errors import ConfigError, StorageError
from vl3.store.manifest import file_sha256
from vl3.system.files import atomic_write_text, require_space
from vl3.system.retry import Pauses, retry

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
"""Files of a model folder; weights in other formats are pickles, which are never opened."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_CHUNK_BYTES = 1 << 20
_PAUSES = Pauses(first_seconds=1.0, longest_seconds=30.0)
_TRIES = 5
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file of a repository as the hub describes it."""

    name: str
    """Its name; files in folders are not fetched."""
    size_bytes: int
    """Its length; -1 if the hub does not say."""
    sha256: str
    """SHA-256 of a large file; empty for one that git itself keeps."""
    blob: str
    """Git's SHA-1 of the others."""


def hub_folder(name: str, revision: str = "") -> Path:
    """The local copy of a model's files, downloaded unless it is there; the folder's name is the commit.

    Args:
        name: owner/name.
        revision: branch, tag or commit; empty for the default branch.

    Raises:
        ConfigError: the hub has no such model or revision, does not show it to this account, or it has only pickles.
        StorageError: the hub cannot be reached, a download failed, or what came is not what the hub describes.
    """
    uri = f"hf://{name}{'@' if revision else ''}{revision}"
    from huggingface_hub.errors import HTTPError

    with _explained(uri):
        try:
            commit, files = _patiently(lambda: _describe(name, revision))
        except (HTTPError, OSError) as error:
            kept = None if _is_refusal(error) else _downloaded_before(name, revision)
            if kept is None:
                raise
            return kept
    _require_weights(uri, files)
    wanted = [file for file in files if _is_wanted(file.name)]
    folder = _snapshot_folder(name, commit)
    require_space(folder, sum(max(file.size_bytes, 0) for file in wanted), purpose=f"to download {uri}")
    with _explained(uri):
        for file in wanted:
            _patiently(partial(_bring, name, commit, file, uri))
    _note_revision(folder, revision or "main", commit)
    return folder


def _note_revision(folder: Path, revision: str, commit: str) -> None:
    """Note in the library's cache what a revision stood for, so that the copy is found without the hub."""
    path = folder.parent.parent / "refs" / revision
    if revision != commit:
        atomic_write_text(path, commit)


def _patiently(call: Callable[[], T]) -> T:
    """Ask again while the hub is overloaded or a transfer breaks; what a file has by then is kept."""
    from huggingface_hub.errors import HTTPError

    def may_pass(error: BaseException) -> bool:
        status = _status(error)
        return isinstance(error, HTTPError | ConnectionError) and (status is None or status in (429, *range(500, 600)))

    return retry(call, may_pass=may_pass, pauses=_PAUSES, tries=_TRIES)


def _describe(name: str, revision: str) -> tuple[str, list[HubFile]]:
    from huggingface_hub import HfApi

    found = HfApi().model_info(name, revision=revision or None, files_metadata=True, timeout=_timeout_seconds())
    return str(found.sha), [_file_of(one) for one in found.siblings or ()]


def _file_of(sibling: Any) -> HubFile:
    size = sibling.size if isinstance(sibling.size, int) else -1
    large = sibling.lfs or {}
    return HubFile(
        name=sibling.rfilename, size_bytes=size, sha256=large.get("sha256") or "", blob=sibling.blob_id or ""
    )


def _is_wanted(name: str) -> bool:
    return "/" not in name and any(fnmatch(name, pattern) for pattern in MODEL_FILES)


def _require_weights(uri: str, files: list[HubFile]) -> None:
    if any(fnmatch(file.name, "*.safetensors") and _is_wanted(file.name) for file in files):
        return
    pickles = [file.name for file in files if any(fnmatch(file.name, pattern) for pattern in _PICKLES)]
    if pickles:
        raise ConfigError(
            f"{uri} has its weights only as {pickles[0]}, a format whose opening can run any code, so nothing was "
            "fetched. Use a repository or a revision with *.safetensors, or convert it where you trust it."
        )
    raise ConfigError(f"{uri} has no *.safetensors file in its first folder, so it is no model. Correct the name.")


def _bring(name: str, commit: str, file: HubFile, uri: str) -> None:
    """Download one file, unless it is there, and compare its digest with the hub's."""
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(name, file.name, revision=commit, etag_timeout=_timeout_seconds()))
    wanted, found = (file.sha256, file_sha256(path)) if file.sha256 else (file.blob, _git_blob(path))
    if wanted and wanted != found:
        size = path.stat().st_size
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise StorageError(
            f"{uri}: {file.name} has {size} bytes with the digest {found}, but the hub describes {file.size_bytes} "
            f"bytes with {wanted}. The copy was deleted. Try again; if it stays so, something between here and the hub "
            "changes files."
        )


def _git_blob(path: Path) -> str:
    """SHA-1 by which git knows a file: over `blob`, its length and its bytes."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _downloaded_before(name: str, revision: str) -> Path | None:
    """The copy of an earlier download, which serves when the hub does not answer."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (OSError, ValueError):
        return None
    return folder if list(folder.glob("*.safetensors")) else None


def _snapshot_folder(name: str, commit: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repository = repo_folder_name(repo_id=name, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / repository / "snapshots" / commit


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn the library's errors into ours."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = _shown(constants.ENDPOINT)
    try:
        yield
    except GatedRepoError as error:
        raise ConfigError(
            f"{uri}: {hub} shows this model only to accounts that have accepted its terms. Accept them on its page, "
            "and set HF_TOKEN to a token of that account."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        what = "revision" if isinstance(error, RevisionNotFoundError) else "model"
        raise ConfigError(
            f"{uri}: {hub} has no such {what}, or does not show it to this account. Correct the name, or set HF_TOKEN."
        ) from error
    except (HTTPError, OSError, ValueError) as error:  # HTTPError: of the library below, such as a read that timed out
        if _status(error) in (401, 403):
            raise ConfigError(
                f"{uri}: {hub} does not show it to this account (HTTP {_status(error)}). Set HF_TOKEN to a token that "
                "may read it."
            ) from error
        raise StorageError(
            f"{uri}: the model cannot be downloaded from {hub} ({_reason(error)}). Check the network and HF_ENDPOINT, "
            "or download the model elsewhere and give its folder."
        ) from error


def _status(error: BaseException) -> int | None:
    """The status of the answer that an error is about."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_refusal(error: BaseException) -> bool:
    """Whether the hub itself said that this account gets nothing, or that there is nothing."""
    return _status(error) in (401, 403, 404)


def _timeout_seconds() -> float:
    from huggingface_hub import constants

    return float(constants.HF_HUB_ETAG_TIMEOUT)


def _reason(error: BaseException) -> str:
    """The first cause in one line: the hub's own message is about its cache."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shown(endpoint: str) -> str:
    """The address without an account."""
    scheme, _, rest = endpoint.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
