"""Where a run's model or bases come from: a folder, a bucket, the hub, the registry, or the lineage of another run.

A whole model is named by --from, an encoder and a decoder by the recipe's `model`. A run and a registered version have
several checkpoints; of those, a whole model is the last one, and an encoder is that of the first stage, which alone
tunes it from the pretrained one (arXiv 2501.13106 sec. 3.3):

    run://night-7            --from: the checkpoint of its last stage    model.vision_base: that of its first
    run://night-7/multitask  the checkpoint of that stage, for both
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.config.part import check_model_uri, split_hub, split_registered, split_run
from vl3.errors import ConfigError, DataError, StorageError
from vl3.models.stored import CONFIG_FILE, RUN_FILE
from vl3.steps.chain import MODEL, TrainedStage, root_of, trained_stages
from vl3.steps.request import Request
from vl3.store.artifacts import fetch, fetch_file, find, parse_reference
from vl3.store.bases import BASE, base_folder, folder_digest
from vl3.store.folders import fetch_folder, folder_digest_s3
from vl3.store.hub import hub_folder
from vl3.store.manifest import MANIFEST_NAME, manifest_digest
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.store.uris import scheme_of
from vl3.system.documents import parse_object
from vl3.system.folders import scratch_folder
from vl3.system.uris import file_path
from vl3.tracking.registry import Registry
from vl3.tracking.trained import checkpoints_of_run

_CHECKPOINT = "checkpoint"
_MOVING = ("hf://", "models:/", "run://")


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
    """`checkpoint` if it is an artifact of a run, otherwise `model` or `base`."""


def find_whole(request: Request) -> FoundModel:
    """The model that the request names with --from, complete on this machine; its content is not checked yet.

    Raises:
        ConfigError: there is no such model.
        StorageError: it is damaged, or cannot be reached.
        ClusterError: the registry does not answer.
    """
    uri = request.model_uri
    check_model_uri(uri)
    if uri.startswith("hf://"):
        return _from_hub(uri, MODEL)
    if uri.startswith("models:/"):
        return _stored(_registered(request, uri).uri)
    if uri.startswith("run://"):
        stages = _stages_of_run(request, uri)
        return _of_checkpoint(_chosen(stages, uri) or stages[-1])
    return _stored(uri)


def find_base(request: Request, uri: str, *, is_encoder: bool) -> FoundModel:
    """The folder of a base that the recipe names, complete on this machine; its content is not checked yet.

    Args:
        request: the run that starts from it.
        uri: its address.
        is_encoder: whether only the encoder is wanted, which a run or a registered version has in its first stage.

    Raises:
        ConfigError: there is no such base; or the run or version has no first stage that has tuned an encoder.
        StorageError: it is damaged, or cannot be reached.
        ClusterError: the registry does not answer.
    """
    if uri.startswith("hf://"):
        return _from_hub(uri, BASE)
    if not uri.startswith(("models:/", "run://")):
        folder = base_folder(uri)
        return FoundModel(folder=folder, uri=uri, sha256=folder_digest(folder), kind=BASE)
    if not is_encoder:
        raise ConfigError(
            f"model.language_base={uri} names a trained model, of which only the encoder can be taken. Name a Qwen2 or "
            "Qwen2.5 by hf://owner/name, s3:// or file://."
        )
    if uri.startswith("models:/"):
        checkpoint = _registered(request, uri)
        return _of_checkpoint(_first_encoder(trained_stages(checkpoint, root_of(checkpoint)), uri))
    stages = _stages_of_run(request, uri)
    return _of_checkpoint(_chosen(stages, uri) or _first_encoder(stages, uri))


def identity_of(uri: str, run_id: str) -> dict[str, Any]:
    """What identifies a model or a base in the key of its import.

    A folder is known by its content. A name on the hub or in the registry may move, even by this run's own promotion:
    what it means is settled once for each run, which a restart keeps. A commit of the hub does not move.
    """
    if uri.startswith("hf://") and _is_commit(split_hub(uri)[1]):
        return {"uri": uri}
    if uri.startswith(_MOVING):
        return {"uri": uri, "run_id": run_id}
    if uri.startswith("package://"):
        return {"sha256": folder_digest(base_folder(uri))}
    manifest = open_store(uri).read(MANIFEST_NAME)
    if manifest is not None:
        return {"uri": uri, "sha256": manifest_digest(manifest)}
    return {"uri": uri, "sha256": folder_digest_s3(uri) if scheme_of(uri) == "s3" else folder_digest(file_path(uri))}


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and all(character in "0123456789abcdef" for character in revision)


def _from_hub(uri: str, kind: str) -> FoundModel:
    name, revision = split_hub(uri)
    folder = hub_folder(name, revision)
    return FoundModel(folder=folder, uri=f"hf://{name}@{folder.name}", sha256=folder_digest(folder), kind=kind)


def _registered(request: Request, uri: str) -> Reference:
    """The checkpoint of a registered version, which must be the one that was registered."""
    name, wanted = split_registered(uri)
    version = Registry(_tracking_uri(request), name, template=request.tracking_template).named(wanted)
    expected = str(version.made_from.get("checkpoint_sha256", ""))
    found = find(version.source)
    if found is None or (expected and found.sha256 != expected):
        raise StorageError(
            f"{version.source}: is not the checkpoint that was registered as {name} version {version.version} (sha256 "
            f"{found.sha256 if found else 'none'}, expected {expected}). Use another version, or name a model's folder."
        )
    return found


def _stages_of_run(request: Request, uri: str) -> list[TrainedStage]:
    """The stages of a run that are trained, from the first one that it has to the last."""
    run, _ = split_run(uri)
    checkpoints = checkpoints_of_run(_tracking_uri(request), run, template=request.tracking_template)
    found = [reference for one in checkpoints if (reference := find(one)) is not None]
    if not found:
        noted = f"; {', '.join(checkpoints)} is gone" if checkpoints else ""
        raise ConfigError(
            f"{uri}: MLflow knows no run {run!r} with a trained stage whose checkpoint is still there{noted}. Correct "
            "the run's id (`vl3 run list`), or name a checkpoint's folder."
        )
    chains = [trained_stages(reference, root_of(reference)) for reference in found]
    return max(chains, key=len)


def _chosen(stages: list[TrainedStage], uri: str) -> TrainedStage | None:
    """The stage that the address names; None if it names none."""
    run, wanted = split_run(uri)
    if not wanted:
        return None
    for stage in stages:
        if stage.name == wanted:
            return stage
    raise ConfigError(
        f"{uri}: run {run} has no checkpoint of stage {wanted}; it has those of {', '.join(s.name for s in stages)}. "
        "Name one of these, or a run that trained it."
    )


def _first_encoder(stages: list[TrainedStage], uri: str) -> TrainedStage:
    """The first stage of a chain, if it is the first of its recipe and has trained the encoder.

    Of a recipe with the stages a, b, c: the chain a, b, c has one, the chain b, c (of a run that started from a model
    in stage b) has none.
    """
    first = stages[0]
    with scratch_folder(None, "run") as folder:
        made_by = parse_object(fetch_file(first.checkpoint, RUN_FILE, folder).read_bytes())
    try:
        rows = made_by["config"]["stages"]
        order = list(rows)
        rate = rows[first.name]["learning_rates"]["vision"]
    except (KeyError, TypeError) as error:
        raise StorageError(
            f"{first.checkpoint.uri}/{RUN_FILE} does not say how the stage {first.name} was trained ({error!r}). Name "
            "the stage whose encoder is meant, as run://RUN/STAGE."
        ) from error
    if order[0] != first.name or rate is None:
        trained = ", ".join(stage.name for stage in stages)
        why = (
            f"its recipe's first stage is {order[0]}, and it trained {trained} from a given model"
            if order[0] != first.name
            else f"its stage {first.name} left the encoder frozen (learning_rates.vision is null)"
        )
        raise ConfigError(
            f"model.vision_base={uri}: there is no encoder of a first stage in this lineage: {why}. Name a run that "
            "trained it, or say which stage's encoder is meant, as run://RUN/STAGE."
        )
    return first


def _of_checkpoint(stage: TrainedStage) -> FoundModel:
    reference = stage.checkpoint
    folder = fetch(reference)
    return FoundModel(folder=folder, uri=reference.uri, sha256=reference.sha256, kind=reference.kind)


def _tracking_uri(request: Request) -> str:
    return request.injected.get("MLFLOW_TRACKING_URI") or request.tracking_uri


def _stored(uri: str) -> FoundModel:
    """A model in a folder of this machine or of a bucket: an artifact, which is verified, or plain files."""
    manifest = open_store(uri).read(MANIFEST_NAME)
    if manifest is not None:
        reference = parse_reference(uri, manifest)
        if reference.kind not in (_CHECKPOINT, MODEL, BASE):
            raise ConfigError(f"{uri} is a {reference.kind}, not a model. Name a checkpoint or another model's folder.")
        return FoundModel(folder=fetch(reference), uri=uri, sha256=reference.sha256, kind=reference.kind)
    if scheme_of(uri) == "s3":
        return _in_bucket(uri)
    folder = file_path(uri)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder, so there is no model to start from. Correct its path.")
    _refuse_run(folder)
    return FoundModel(folder=folder, uri=uri, sha256=folder_digest(folder), kind=MODEL)


def _in_bucket(uri: str) -> FoundModel:
    if not open_store(uri).exists(CONFIG_FILE):
        raise ConfigError(f"{uri}: there is no {CONFIG_FILE}, so this is no model. Name the folder of a model.")
    try:
        folder = fetch_folder(uri)
    except DataError as error:
        raise StorageError(f"{uri}: the model cannot be copied. {error}") from error
    return FoundModel(folder=folder, uri=uri, sha256=folder_digest(folder), kind=MODEL)


def _refuse_run(folder: Path) -> None:
    """Raise ConfigError for the folder of a whole run, which has several models; the message lists them."""
    paths = sorted(folder.glob("artifacts/steps/train-*/*/checkpoint"), key=lambda path: path.stat().st_mtime)
    if (folder / CONFIG_FILE).is_file() or not paths:
        return
    raise ConfigError(
        f"{folder} is the folder of a run, which has several models. Name one of them: {', '.join(map(str, paths))}."
    )
