"""Models of the Hugging Face hub, or of a server with its interface (HF_ENDPOINT)."""

from pathlib import Path

from vl3.errors import ConfigError, StorageError

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
"""Files of a model folder; weights in other formats are pickles, which are never opened."""


def hub_folder(name: str, revision: str = "") -> Path:
    """The local copy of a model's files, downloaded unless it is there; the folder's name is the commit.

    Args:
        name: owner/name.
        revision: branch, tag or commit; empty for the default branch.

    Raises:
        ConfigError: the hub has no such model or revision, or does not show it to this account.
        StorageError: the hub cannot be reached, or the download failed.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = _shown(constants.ENDPOINT)
    uri = f"hf://{name}{'@' if revision else ''}{revision}"
    try:
        folder = snapshot_download(
            name,
            revision=revision or None,
            etag_timeout=constants.HF_HUB_ETAG_TIMEOUT,
            allow_patterns=list(MODEL_FILES),
            ignore_patterns=["*/*"],
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        what = "revision" if isinstance(error, RevisionNotFoundError) else "model"
        raise ConfigError(
            f"{uri}: {hub} has no such {what}, or does not show it to this account. Correct the name, or set HF_TOKEN."
        ) from error
    except (HTTPError, OSError, ValueError) as error:  # HTTPError: of the library below, such as a read that timed out
        raise StorageError(
            f"{uri}: the model cannot be downloaded from {hub} ({_reason(error)}). Check the network and HF_ENDPOINT, "
            "or download the model elsewhere and give its folder."
        ) from error
    return Path(folder)


def _reason(error: BaseException) -> str:
    """The first cause in one line: the hub's own message is about its cache."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shown(endpoint: str) -> str:
    """The address without an account."""
    scheme, _, rest = endpoint.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
