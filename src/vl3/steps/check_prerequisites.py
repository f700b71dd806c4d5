"""Step: report everything that would stop the run later, and settle what the run starts from.

That is the digests of the bases of stage 1, or the whole model that the run names, imported.
"""

import importlib.util
import logging
import os
import secrets
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vl3.config.codec import to_dict
from vl3.config.placement import BUILD
from vl3.data.corpus import read_corpus
from vl3.data.sample.records import annotations_file, annotations_names, find_annotations
from vl3.errors import ConfigError, DataError, StorageError, Vl3Error
from vl3.launch.check.findings import combined
from vl3.models.vocabulary import TOKENIZER_FILE
from vl3.planning.fit import check_fit
from vl3.steps.chain import BASES_FILE, SOURCE
from vl3.steps.request import Request, Work, trained_by
from vl3.steps.start_model import FoundModel, find_model, import_model, model_identity
from vl3.store.artifacts import read_manifest
from vl3.store.bases import base_folder, folder_digest
from vl3.store.objects import Store, open_store
from vl3.store.reference import Reference
from vl3.store.s3.connection import connection_from_environment
from vl3.store.uris import scheme_of
from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_bytes, atomic_write_json, require_space, storage_errors
from vl3.system.secrets import masked
from vl3.system.uris import file_path
from vl3.workflow.step import Step, StepOutcome, is_published

log = logging.getLogger("vl3.steps")

MIN_FREE_BYTES = 2 * 1024**3
"""Minimum space for a run's dataset, checkpoints and logs."""
_PYTHON = (3, 11)
_MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format; more is noise read as a length."""
S3_PATIENCE_SECONDS = 30.0
"""Time for each request to the object store, including retries; a running step waits longer."""
_LIBRARIES = {
    "local": ("torch", "transformers", "deepspeed", "peft", "mlflow", "great_expectations", "av", "pyarrow"),
    # Training, data and evaluation have their own images; this one only starts and follows them.
    "trainjob": ("kubernetes", "minio", "mlflow"),
}


Probe = Callable[[Request], object]
"""Raises a Vl3Error for what is missing."""


def check(request: Request, *start: Probe) -> None:
    """Run every check, and those of what the run starts from.

    Raises:
        Vl3Error: one report of everything that is missing. Its family is that of the single problem; of several
            families the first in the order configuration, data, storage, platform.
    """
    problems: list[Vl3Error] = []
    for probe in (*start, *_PROBES):
        try:
            probe(request)
        except Vl3Error as error:
            problems.append(error)
    problems += _cluster_problems(request)
    if problems:
        raise combined(problems, "prerequisites are missing, listed above")


def _is_on_cluster(request: Request) -> bool:
    return request.config.launch.backend == "trainjob"


def _cluster_problems(request: Request) -> list[Vl3Error]:
    """What prevents the stages, and the dataset's build, from running where their placements say."""
    placements = request.config.placements
    placed = {name: placements[name] for name in (*trained_by(request), BUILD) if name in placements}
    if not _is_on_cluster(request) or not placed:
        return []
    from vl3.launch.check.cluster import check_cluster

    fit = check_fit(request.config, trained_by(request))
    for note in fit.notes:
        log.warning(note)
    return [*fit.problems, *check_cluster(placed)]


def _check_interpreter(request: Request) -> None:
    if sys.version_info < _PYTHON:
        raise ConfigError(f"Python is {sys.version.split()[0]} and must be {_PYTHON[0]}.{_PYTHON[1]} or newer.")
    names = _LIBRARIES[request.config.launch.backend]
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"libraries are not installed: {', '.join(missing)}. Run `make setup`.")


def _check_vision_base(request: Request) -> None:
    check_base(base_folder(request.config.model.vision_base), "model.vision_base", ("config.json",))


def _check_language_base(request: Request) -> None:
    folder = base_folder(request.config.model.language_base)
    check_base(folder, "model.language_base", ("config.json", TOKENIZER_FILE))


def check_base(folder: Path, field: str, names: tuple[str, ...]) -> None:
    """Check that a base has its files and that its weights are complete safetensors files.

    Raises:
        StorageError: a file is missing, not JSON, or truncated.
    """
    for name in names:
        try:
            parse_object((folder / name).read_bytes())
        except (OSError, ValueError) as error:
            raise StorageError(f"{field}: {folder / name} cannot be read ({error}). Make the base again.") from error
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise StorageError(f"{field}: {folder} has no *.safetensors file, so nothing can be loaded. Make it again.")
    for path in weights:
        _check_safetensors(path, field)


def _check_safetensors(path: Path, field: str) -> None:
    """Check the file's length, which follows from its header, without reading the weights.

    A header of 100 bytes whose last tensor ends at data offset 4000: the file must have 8 + 100 + 4000 bytes.
    """
    try:
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            if header_bytes > _MAX_HEADER_BYTES:
                raise ValueError(f"its header would have {header_bytes} bytes")
            header = parse_object(file.read(header_bytes))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if not ends or not all(isinstance(end, int) for end in ends):
            raise ValueError("its header has no tensors with offsets")
    except (OSError, ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise StorageError(f"{field}: {path} is not a safetensors file ({error}). Make the base again.") from error
    expected, found = 8 + header_bytes + max(ends), path.stat().st_size
    if found != expected:
        raise StorageError(f"{field}: {path} has {found} bytes and should have {expected}. Make the base again.")


def _check_data(request: Request) -> None:
    for uri in read_corpus(request.data_uri).values():
        _check_dataset(uri)


def _check_dataset(uri: str) -> None:
    if scheme_of(uri) == "s3":
        bucket = _open_bucket(uri)
        if not any(bucket.exists(name) for name in annotations_names("train")):
            raise DataError(
                f"{uri}/{annotations_file('train')}: the annotations are missing. Correct DATA, or write "
                "one JSON sample per line there."
            )
        return
    folder = file_path(uri)
    path = find_annotations(folder, "train")
    if not folder.is_dir():
        raise DataError(
            f"{folder}: the data folder does not exist. Correct DATA, or make a sample with "
            f"`vl3 data sample --out {folder}`."
        )
    if not path.is_file() or not path.stat().st_size:
        raise DataError(f"{path}: the annotations are missing or empty. Write one JSON sample per line there.")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: no permission to read the annotations. Correct the file's owner.")


def _check_artifacts(request: Request) -> None:
    """Check that a file can be written, read and deleted at the root of artifacts; on a disk also the free space."""
    if scheme_of(request.artifacts_uri) == "s3":
        _probe_bucket(request.artifacts_uri)
        return
    if _is_on_cluster(request):
        raise ConfigError(
            f"artifacts_uri={request.artifacts_uri!r} is a folder of this machine, which the pods of "
            "launch.backend=trainjob cannot see. Set ARTIFACTS=s3://bucket/prefix."
        )
    folder = file_path(request.artifacts_uri)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"probe")
        probe.unlink()
    require_space(folder, MIN_FREE_BYTES, purpose="for dataset, checkpoints and logs")


def _open_bucket(uri: str) -> Store:
    patience = S3_PATIENCE_SECONDS
    connection = connection_from_environment()
    return open_store(uri, replace(connection, request_timeout_seconds=patience / 3, deadline_seconds=patience))


def _probe_bucket(uri: str) -> None:
    """List, put, read and delete a small object, as every step does."""
    store, key, content = _open_bucket(uri), f".probe-{secrets.token_hex(8)}", b"probe"
    store.list(key)  # first, to report a missing bucket: some servers would create it at the put
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe")
        path.write_bytes(content)
        store.put_file(path, key)
    found = store.read(key)
    store.delete(key)
    if found != content:
        raise StorageError(
            f"{uri}/{key}: the test object was {'gone' if found is None else 'other bytes'} right after the upload, so "
            "something else writes or deletes below this prefix. Correct ARTIFACTS."
        )


def _check_tracking(request: Request) -> None:
    """Open the workflow's tracking run, which shows that the store is reachable and writable.

    Later steps do not wait for it, but the one that promotes needs it.
    """
    from vl3.config.tracking import is_server
    from vl3.workflow.tracking import open_parent_run

    open_parent_run(request)
    uri = request.injected.get("MLFLOW_TRACKING_URI") or request.tracking_uri
    if is_server(uri) and scheme_of(request.artifacts_uri) == "file":
        raise ConfigError(
            f"the tracking server {masked(uri)} refuses model versions in {request.artifacts_uri}, because it cannot "
            "see this machine's folders. Put the artifacts on s3:// (--artifacts), or leave out --tracking."
        )


_BASE_PROBES: tuple[Probe, ...] = (_check_vision_base, _check_language_base)
_PROBES: tuple[Probe, ...] = (
    _check_interpreter,
    _check_data,
    _check_artifacts,
    _check_tracking,
)


def base_digests(request: Request) -> dict[str, Any]:
    """URI and digest of both bases."""
    model = to_dict(request.config.model)
    return {name: {"uri": uri, "sha256": folder_digest(base_folder(uri))} for name, uri in model.items()}


def key_parts(request: Request) -> dict[str, Any]:
    """Only the bases or the model: the key identifies the start artifact; the checks themselves run every time."""
    try:
        if request.model_uri:
            return model_identity(request)
        return {"bases": {name: base["sha256"] for name, base in base_digests(request).items()}}
    except (Vl3Error, OSError):  # the checks report it, together with everything else
        return {}


def run(work: Work) -> StepOutcome:
    """Check, then publish what the run starts from: digests and tokenizer of the bases, or the imported model."""
    request = work.request
    # A model that an earlier attempt has imported is not looked for again: its name may mean another one by now.
    imported = is_published(work, "start") if request.model_uri else None
    found: list[FoundModel] = []
    if imported is not None:
        check(request)
    elif request.model_uri:
        check(request, lambda asked: found.append(find_model(asked)))
    else:
        check(request, *_BASE_PROBES)
    with work.step_run() as step_run:
        if request.model_uri:
            start = imported or import_model(work, found[0])
            source = read_manifest(start).made_from[SOURCE]
            values: dict[str, Any] = {"model": source}
            step_run.set_tags({"vl3.model": source["uri"], "vl3.model_sha256": source["sha256"]})
        else:
            values = {"bases": base_digests(request)}
            digests = {name: base["sha256"] for name, base in values["bases"].items()}
            step_run.set_tags({f"vl3.{name}": sha256 for name, sha256 in digests.items()})
            start = _publish_bases(work, digests)
    work.clear()
    return StepOutcome(outputs={"start": start}, values=values)


def _publish_bases(work: Work, digests: dict[str, str]) -> Reference:
    with work.fresh_folder("start") as folder:
        atomic_write_json(folder / BASES_FILE, digests)
        language = base_folder(work.request.config.model.language_base)
        atomic_write_bytes(folder / TOKENIZER_FILE, (language / TOKENIZER_FILE).read_bytes())
        return work.publish(folder, "start", kind="start")


STEP = Step(run=run, key_parts=key_parts, reusable=False)
