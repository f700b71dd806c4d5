"""Where the data, artifacts and tracking of a local run are: what was given, as URIs, checked before anything starts.

Nothing but the standard library is imported: set-up checks a run by this before it installs the rest.
"""

import re
from dataclasses import replace
from pathlib import Path

from vl3.config.parameters import WorkflowParameters
from vl3.config.tracking import check_tracking_uri
from vl3.data.corpus import is_corpus, read_corpus
from vl3.data.sample.records import annotations_file
from vl3.errors import ConfigError
from vl3.store.uris import scheme_of, split_s3
from vl3.system.uris import file_path, file_uri

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
SAMPLE = Path("build/data/tiny")
"""Default data: a sample that is generated for it."""


def with_addresses(given: WorkflowParameters) -> WorkflowParameters:
    """The parameters with paths as URIs, and the sample's folder if no data is given.

    Raises:
        ConfigError: an address is malformed, or the data folder does not exist or has no annotations.
    """
    if given.tracking_uri:
        check_tracking_uri(given.tracking_uri)
    return replace(
        given,
        data_uri=_checked_data(as_folder_uri(given.data_uri, "DATA")) if given.data_uri else file_uri(SAMPLE),
        artifacts_uri=as_folder_uri(given.artifacts_uri, "ARTIFACTS") if given.artifacts_uri else "",
        model_uri=model_uri(given.model_uri),
    )


def model_uri(given: str) -> str:
    """A model as a URI: a path becomes a file:// URI.

    Raises:
        ConfigError: it is a path, and no folder is there.
    """
    if not given or _SCHEME.match(given):
        return given
    folder = Path(given).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(
            f"model {given!r}: there is no folder {folder}. Correct the path; a model of the Hugging Face hub is "
            "written as hf://owner/name, one of the registry as models:/name@alias."
        )
    return file_uri(folder)


def as_folder_uri(text: str, name: str) -> str:
    """A file:// or s3:// URI, or a path as one. Nothing is special in a path, not even `#` or `%20`."""
    try:
        if "://" not in text:
            return file_uri(file_path(file_uri(Path(text))))
        if scheme_of(text) == "file":
            return file_uri(file_path(text))
        split_s3(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    return text


def _checked_data(uri: str) -> str:
    """The URI, if annotations can be read there; an S3 store is not asked, and a corpus is not opened.

    Raises:
        ConfigError: the folder or its annotations are missing.
    """
    if uri.startswith("s3://") or is_corpus(uri):
        return uri
    check_data(uri)
    return uri


def check_data(uri: str) -> None:
    """Check that annotations can be read in each folder of this machine that a URI stands for.

    Raises:
        ConfigError: a folder or its annotations are missing, or a corpus is none.
        DataError: there is no such corpus file.
    """
    try:
        for dataset in read_corpus(uri).values():
            if dataset.startswith("file:"):
                _check_folder(file_path(dataset), annotations_file("train"))
    except OSError as error:
        raise ConfigError(
            f"DATA: {error.filename} cannot be read ({error.strerror}). Correct DATA (--data)."
        ) from error


def _check_folder(folder: Path, annotations: str) -> None:
    path = folder / annotations
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise ConfigError(f"DATA: {folder} {what}. Set DATA (--data) to a folder with {annotations}.")
    if any(folder.glob("*.tar")) and not path.exists():
        return  # shards, which only a curation reads; the first step of any other workflow refuses them
    if not path.is_file() or not path.stat().st_size:
        raise ConfigError(
            f"DATA: {path} is missing or empty. Write one JSON sample per line there, or set DATA (--data) to the "
            "folder above `annotations`."
        )
    path.open("rb").close()  # an error says that it may not be read
