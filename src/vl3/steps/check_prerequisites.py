"""Step: report everything that would stop the run later, before anything is downloaded, built or trained."""

import importlib.util
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vl3.config.placement import BENCHMARKS, RESERVED
from vl3.data.corpus import read_corpus
from vl3.data.sample.records import annotations_file, annotations_names, find_annotations
from vl3.errors import ConfigError, DataError, StorageError, Vl3Error
from vl3.launch.check.findings import combined
from vl3.planning.fit import check_fit
from vl3.steps.benchmarks import benchmark_copies, harness_python
from vl3.steps.request import Request, Work, trained_by
from vl3.store.objects import Store, open_store
from vl3.store.s3.connection import connection_from_environment
from vl3.store.uris import scheme_of
from vl3.system.files import require_space, storage_errors
from vl3.system.secrets import masked
from vl3.system.uris import file_path
from vl3.workflow.step import Step, StepOutcome, StepRequest

log = logging.getLogger("vl3.steps")

MIN_FREE_BYTES = 2 * 1024**3
"""Minimum space for a run's dataset, checkpoints and logs."""
_PYTHON = (3, 11)
S3_PATIENCE_SECONDS = 30.0
"""Time for each request to the object store, including retries; a running step waits longer."""
_LIBRARIES = {
    "local": ("torch", "transformers", "deepspeed", "peft", "mlflow", "great_expectations", "av", "pyarrow"),
    # Training, data and evaluation have their own images; this one only starts and follows them.
    "trainjob": ("kubernetes", "minio", "mlflow"),
}


Probe = Callable[[Request], object]
"""Raises a Vl3Error for what is missing."""


def check(request: Request) -> None:
    """Run every check.

    Raises:
        Vl3Error: one report of everything that is missing. Its family is that of the single problem; of several
            families the first in the order configuration, data, storage, platform.
    """
    problems: list[Vl3Error] = []
    for probe in _PROBES:
        try:
            probe(request)
        except Vl3Error as error:
            problems.append(error)
    problems += _cluster_problems(request)
    if problems:
        raise combined(problems, "prerequisites are missing, listed above")


def _is_on_cluster(request: StepRequest[Any]) -> bool:
    return request.config.launch.backend == "trainjob"


def _cluster_problems(request: Request) -> list[Vl3Error]:
    """What prevents the stages, the dataset's build and the evaluation from running where their placements say."""
    placements = request.config.placements
    placed = {name: placements[name] for name in (*trained_by(request), *RESERVED) if name in placements}
    if not _is_on_cluster(request) or not placed:
        return []
    from vl3.launch.check.cluster import check_cluster

    fits = [check_fit(run, trained_by(replace(request, config=run))) for run in request.config.runs()]
    for note in dict.fromkeys(note for fit in fits for note in fit.notes):
        log.warning(note)
    return [*(problem for fit in fits for problem in fit.problems), *check_cluster(placed)]


def _check_interpreter(request: Request) -> None:
    if sys.version_info < _PYTHON:
        raise ConfigError(f"Python is {sys.version.split()[0]} and must be {_PYTHON[0]}.{_PYTHON[1]} or newer.")
    names = _LIBRARIES[request.config.launch.backend]
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"libraries are not installed: {', '.join(missing)}. Run `make setup`.")


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


def check_artifacts(request: StepRequest[Any]) -> None:
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


def check_tracking(request: StepRequest[Any]) -> None:
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


def _check_benchmarks(request: Request) -> None:
    """Check that each benchmark has its copy, and that something on this machine can ask it."""
    for run in request.config.runs():
        if benchmark_copies(run.evaluation) and not (_is_on_cluster(request) and BENCHMARKS in run.placements):
            harness_python()


_PROBES: tuple[Probe, ...] = (
    _check_interpreter,
    _check_data,
    _check_benchmarks,
    check_artifacts,
    check_tracking,
)


def key_parts(_: Request) -> dict[str, Any]:
    """Nothing: the checks run every time and leave nothing that another step takes."""
    return {}


def run(work: Work) -> StepOutcome:
    """Check everything.

    Raises:
        Vl3Error: one report of what is missing.
    """
    check(work.request)
    return StepOutcome(outputs={})


STEP = Step(run=run, key_parts=key_parts, reusable=False)
