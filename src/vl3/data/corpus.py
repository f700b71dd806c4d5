"""Corpora: which datasets a run draws from. A YAML file lists them; a plain folder is a corpus of one.

datasets:
  plotqa: plotqa                      a folder beside the file
  coco_text: s3://team/coco_text
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vl3.config.data import Category
from vl3.config.mixture import DATASET_NAME, ONLY_DATASET
from vl3.errors import ConfigError, DataError, StorageError
from vl3.store.artifacts import fetch
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.store.uris import check_key, join_uri, scheme_of, split_s3
from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_json, read_plain
from vl3.system.uris import file_path

CORPUS = "corpus"
"""Kind of the artifact that stands for several built datasets: their names and references."""
CORPUS_FILE = "corpus.json"
_MAX_BYTES = 1 << 20
_MAX_DATASETS = 1000


def is_corpus(uri: str) -> bool:
    """Whether a URI or path names a corpus file, and not a folder."""
    return uri.endswith((".yaml", ".yml"))


def read_corpus(uri: str) -> dict[str, str]:
    """The datasets of a corpus by name, as URIs of folders; of a plain folder, the one dataset `data`.

    Raises:
        ConfigError: the file is no corpus, or names something else than a folder below it or a full URI.
        DataError: there is no such file.
        StorageError: the store fails.
    """
    if not is_corpus(uri):
        return {ONLY_DATASET: uri}
    parent, _, name = uri.rpartition("/")
    content = open_store(parent).read(name)
    if content is None:
        raise DataError(f"{uri}: there is no such corpus file. Correct DATA.")
    datasets = _parse(uri, content)
    return {name: _address(uri, parent, name, value) for name, value in datasets.items()}


def write_corpus(folder: Path, datasets: Mapping[str, Reference]) -> None:
    """Write the built datasets of a corpus, to be published as an artifact of the kind CORPUS.

    Raises:
        StorageError: the file cannot be written.
    """
    atomic_write_json(folder / CORPUS_FILE, {name: reference.to_dict() for name, reference in datasets.items()})


def datasets_of(reference: Reference) -> dict[str, Reference]:
    """The built datasets by name that an artifact stands for: those of a corpus, or the one that it is itself.

    Raises:
        StorageError: the artifact is missing or damaged.
    """
    if reference.kind != CORPUS:
        return {ONLY_DATASET: reference}
    path = fetch(reference) / CORPUS_FILE
    try:
        return {name: Reference.from_dict(one) for name, one in parse_object(read_plain(path)).items()}
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read ({error}). Build the corpus again.") from error


def _parse(uri: str, content: bytes) -> Mapping[str, Any]:
    """The list of datasets, with names that mixtures can use."""
    if len(content) > _MAX_BYTES:
        raise _wrong(uri, f"it has {len(content)} bytes, more than {_MAX_BYTES}")
    from vl3.system.strict_yaml import parse_yaml  # needs a library, and a check before set-up has none

    try:
        data = parse_yaml(content.decode("utf-8"))
    except ValueError as error:
        raise _wrong(uri, " ".join(str(error).split())[:300]) from error
    if not isinstance(data, dict) or set(data) != {"datasets"} or not isinstance(data["datasets"], dict):
        raise _wrong(uri, "it is not one mapping `datasets` of names and folders")
    datasets = data["datasets"]
    if not 0 < len(datasets) <= _MAX_DATASETS:
        raise _wrong(uri, f"it has {len(datasets)} datasets, not 1 to {_MAX_DATASETS}")
    for name in datasets:
        if not isinstance(name, str) or not DATASET_NAME.fullmatch(name) or name in tuple(Category):
            raise _wrong(
                uri,
                f"{name!r:.100} cannot name a dataset: use up to 63 letters, digits, '_', '-', not a category's name",
            )
    return datasets


def _address(uri: str, parent: str, name: str, value: Any) -> str:
    """The URI of a dataset: a full one, or a path below the folder of the file."""
    if not isinstance(value, str) or not value.isprintable():
        raise _wrong(uri, f"{name} is {value!r:.100} and not a path or URI")
    if "://" not in value:
        return join_uri(parent, check_key(value.removesuffix("/"), f"{uri}: {name}"))
    try:
        is_local = scheme_of(value) == "file"
        if is_local:
            file_path(value)
        else:
            split_s3(value)
    except ConfigError as error:
        raise ConfigError(f"{uri}: {name}: {error}") from error
    if is_local and scheme_of(uri) != "file":
        raise _wrong(uri, f"{name} is {value!r:.200}, a folder of whichever machine reads it; name an s3:// URI")
    return value.rstrip("/")


def _wrong(uri: str, reason: str) -> ConfigError:
    return ConfigError(
        f"{uri} is not a corpus: {reason}. Write `datasets:` with a line `name: folder` for each; see "
        "docs/data-formats.md."
    )
