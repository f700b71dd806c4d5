"""The whole model that a run starts from instead of the bases, or that it evaluates: found, checked, imported.

It is imported into the run's own artifacts in our layout, so that every later step reads one verified folder, wherever
the model came from. The import's manifest names the source:

    models:/vl3-tiny@champion -> file:///runs/a/artifacts/steps/train-video/KEY/checkpoint -> <run>/steps/.../start
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.config.part import check_model_uri, split_hub, split_registered
from vl3.conventions import PATCH_SIZE_PX
from vl3.errors import ConfigError, DataError, StorageError
from vl3.models.convert import check_model, convert
from vl3.models.layouts.names import Layout
from vl3.models.stored import CONFIG_FILE, RUN_FILE
from vl3.models.vocabulary import CHAT_TOKENS, Vocabulary
from vl3.steps.chain import MODEL, SOURCE
from vl3.steps.request import Request, Work
from vl3.store.artifacts import fetch, parse_reference
from vl3.store.folders import fetch_folder, folder_digest_s3
from vl3.store.hub import MODEL_FILES, hub_folder
from vl3.store.manifest import MANIFEST_NAME, file_sha256, manifest_digest
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.store.uris import file_path, scheme_of
from vl3.tracking.registry import Registry

_CHECKPOINT = "checkpoint"


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundModel:
    """A model where it is now."""

    folder: Path
    """Its files on this machine."""
    uri: str
    """Where they came from: a moving name (a branch, an alias) is replaced by what it stood for."""
    sha256: str
    """Digest of its manifest if it is an artifact, otherwise of its files."""
    kind: str
    """`checkpoint` if it is an artifact of a run, otherwise `model`."""


def find_model(request: Request) -> FoundModel:
    """The model that the request names, complete on this machine and checked.

    Raises:
        ConfigError: there is no such model, it is another architecture or adapters alone, or its parts contradict.
        StorageError: it is damaged, or cannot be reached.
        ClusterError: the registry does not answer.
    """
    try:
        found = _locate(request)
        sizes = check_model(found.folder)
    except OSError as error:
        raise StorageError(
            f"{request.model_uri}: the model cannot be read ({error}). Correct the files or their permissions."
        ) from error
    vocabulary = Vocabulary(found.folder)
    missing = [token for token in CHAT_TOKENS if vocabulary.find(token) is None]
    if missing:
        raise ConfigError(
            f"{vocabulary.path} has no token {', '.join(missing)}, which the chat format needs. Use a model with the "
            "tokenizer of a Qwen2."
        )
    if sizes.vision.patch_size != PATCH_SIZE_PX:
        raise ConfigError(
            f"{found.folder / CONFIG_FILE}: the encoder's patch_size is {sizes.vision.patch_size}, but vl3 prepares "
            f"media in patches of {PATCH_SIZE_PX} pixels. Use a model with that patch size."
        )
    return found


def model_identity(request: Request) -> dict[str, Any]:
    """What identifies the model in the key of its import.

    A folder is known by its content. A name on the hub or in the registry may move, even by this run's own promotion:
    what it means is settled once for each run, which a restart keeps.
    """
    uri = request.model_uri
    if uri.startswith(("hf://", "models:/")):
        return {"model": uri, "run_id": request.run_id}
    manifest = open_store(uri).read(MANIFEST_NAME)
    if manifest is not None:
        return {"model": uri, "sha256": manifest_digest(manifest)}
    return {"model": uri, "sha256": folder_digest_s3(uri) if scheme_of(uri) == "s3" else _files_digest(file_path(uri))}


def import_model(work: Work, found: FoundModel) -> Reference:
    """Publish the model, in our layout, as the start artifact of the run.

    Raises:
        ConfigError: the folder has changed and is no model any more.
        StorageError: it cannot be written.
    """
    work.progress(0, 1, "importing the model")
    with work.fresh_folder("start") as folder:
        convert(found.folder, folder, Layout.OFFICIAL)
        # The record of the run that trained it; merges and DiffFP are in the preprocessor's files.
        (folder / RUN_FILE).unlink(missing_ok=True)
        origin = {"uri": found.uri, "sha256": found.sha256, "kind": found.kind}
        return work.publish(folder, "start", kind=MODEL, made_from={SOURCE: origin})


def _locate(request: Request) -> FoundModel:
    uri = request.model_uri
    check_model_uri(uri)
    if uri.startswith("hf://"):
        name, revision = split_hub(uri)
        folder = hub_folder(name, revision)
        return FoundModel(folder=folder, uri=f"hf://{name}@{folder.name}", sha256=_files_digest(folder), kind=MODEL)
    if uri.startswith("models:/"):
        return _registered(request)
    return _stored(uri)


def _registered(request: Request) -> FoundModel:
    """The checkpoint of a registered version, which must be the one that was registered."""
    name, wanted = split_registered(request.model_uri)
    tracking_uri = request.injected.get("MLFLOW_TRACKING_URI") or request.tracking_uri
    version = Registry(tracking_uri, name, template=request.tracking_template).named(wanted)
    expected = str(version.made_from.get("checkpoint_sha256", ""))
    found = _stored(version.source)
    if expected and found.sha256 != expected:
        raise StorageError(
            f"{version.source}: is not the checkpoint that was registered as {name} version {version.version} (sha256 "
            f"{found.sha256}, expected {expected}). Use another version, or name a model's folder."
        )
    return found


def _stored(uri: str) -> FoundModel:
    """A model in a folder of this machine or of a bucket: an artifact, which is verified, or plain files."""
    manifest = open_store(uri).read(MANIFEST_NAME)
    if manifest is not None:
        reference = parse_reference(uri, manifest)
        if reference.kind not in (_CHECKPOINT, MODEL):
            raise ConfigError(f"{uri} is a {reference.kind}, not a model. Name a checkpoint or another model's folder.")
        return FoundModel(folder=fetch(reference), uri=uri, sha256=reference.sha256, kind=reference.kind)
    if scheme_of(uri) == "s3":
        return _in_bucket(uri)
    folder = file_path(uri)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder, so there is no model to start from. Correct its path.")
    _refuse_run(folder)
    return FoundModel(folder=folder, uri=uri, sha256=_files_digest(folder), kind=MODEL)


def _in_bucket(uri: str) -> FoundModel:
    if not open_store(uri).exists(CONFIG_FILE):
        raise ConfigError(f"{uri}: there is no {CONFIG_FILE}, so this is no model. Name the folder of a model.")
    try:
        folder = fetch_folder(uri)
    except DataError as error:
        raise StorageError(f"{uri}: the model cannot be copied. {error}") from error
    return FoundModel(folder=folder, uri=uri, sha256=_files_digest(folder), kind=MODEL)


def _refuse_run(folder: Path) -> None:
    """Raise ConfigError for the folder of a whole run, which has several models; the message lists them."""
    paths = sorted(folder.glob("artifacts/steps/train-*/*/checkpoint"), key=lambda path: path.stat().st_mtime)
    if (folder / CONFIG_FILE).is_file() or not paths:
        return
    raise ConfigError(
        f"{folder} is the folder of a run, which has several models. Name one of them: {', '.join(map(str, paths))}."
    )


def _files_digest(folder: Path) -> str:
    """SHA-256 (hex) over names and digests of a model's files; other files and folders beside them do not count."""
    files = {path.name: file_sha256(path) for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
