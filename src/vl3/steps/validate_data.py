"""Step: build the dataset (shards and index) and let Great Expectations judge it before anything is trained on it."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vl3.config.codec import to_dict
from vl3.config.stages import StageConfig
from vl3.errors import DataError
from vl3.models.vocabulary import TOKENIZER_FILE
from vl3.steps.chain import MODEL
from vl3.steps.request import Request, Work, trained_by
from vl3.store.artifacts import fetch, fetch_file
from vl3.store.folders import fetch_folder, folder_digest_s3
from vl3.store.uris import scheme_of
from vl3.system.uris import file_path
from vl3.validation.result import RESULT_FILE
from vl3.workflow.step import Step, StepOutcome
from vl3.workflow.tracking import dataset_name


def run(work: Work) -> StepOutcome:
    """Build, validate, publish. The validation report is published for a refused dataset, too.

    Raises:
        DataError: the dataset is refused; the message lists every bad line with its reason.
    """
    with work.step_run() as step_run, work.fresh_folder("dataset") as folder:
        _build(work, folder)
        report, result = _validate(work, folder)
        step_run.log_text((fetch(report) / RESULT_FILE).read_text(encoding="utf-8"), RESULT_FILE)
        result.require_passed()
        dataset = work.publish(folder, "dataset", kind="dataset")
        step_run.log_dataset(dataset_name(work.request), dataset.sha256, dataset.uri, context="validation")
    work.clear()
    return StepOutcome(outputs={"dataset": dataset, "validation": report}, values=result.facts)


def _build(work: Work, folder: Path) -> None:
    from vl3.data.build.of_run import build_for_run

    request, start = work.request, work.request.inputs["start"]
    with work.fresh_folder("tokenizer") as tokenizer_folder:
        if start.kind == MODEL:
            fetch_file(start, TOKENIZER_FILE, tokenizer_folder)
        build_for_run(
            fetch_folder(request.data_uri),
            folder,
            request.config,
            tokenizer_folder=tokenizer_folder if start.kind == MODEL else None,
            progress=lambda done, total: work.progress(done, total, "samples decoded and packed"),
        )


def _validate(work: Work, dataset_folder: Path) -> tuple[Any, Any]:
    """Validate the index; returns the reference of the published report, and the result, with the report's folder."""
    from vl3.validation.suite import validate_dataset

    work.progress(1, 1, "judging the index")
    with work.fresh_folder("validation") as folder:
        result = validate_dataset(dataset_folder, work.request.config, folder, stages=trained_by(work.request))
        docs = result.docs_folder.relative_to(folder)
        report = work.publish(folder, "validation", kind="validation-report")
    return report, dataclasses.replace(result, docs_folder=fetch(report) / docs)


def key_parts(request: Request) -> dict[str, Any]:
    """What the data are, how they are prepared and what they are used for."""
    config = request.config
    data = to_dict(config.data)
    data.pop("build_workers")
    return {
        "data": data,
        "stages": {name: _asked(config.stages[name]) for name in trained_by(request)},
        "samples_per_task": config.evaluation.samples_per_task,
        "source": _source(request.data_uri),
    }


def _source(uri: str) -> str:
    """A digest of the data without reading the media."""
    return folder_digest_s3(uri) if scheme_of(uri) == "s3" else folder_fingerprint(file_path(uri))


def _asked(stage: StageConfig) -> dict[str, Any]:
    """The fields of a stage that concern the data, unlike its steps and learning rates."""
    row = to_dict(stage)
    return {name: row[name] for name in ("mixture", "image_merge_size", "video_merge_size", "difffp")}


def folder_fingerprint(folder: Path) -> str:
    """Digest of a data folder: the annotations' content, and name, size and time of every other file.

    Media are not read: that would take as long as the step that a reuse saves. The dataset that is built from them is
    identified by its content.

    Raises:
        DataError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: the data folder does not exist. Correct DATA.")
    digest = hashlib.sha256()
    for path in sorted(_files(folder)):
        name = os.fsencode(path.relative_to(folder))  # a file's name need not be UTF-8
        if name.startswith(b"annotations/"):
            with path.open("rb") as file:
                digest.update(name + b"\0" + hashlib.file_digest(file, "sha256").digest())
        else:
            facts = path.stat()
            digest.update(name + f"\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if Path(parent, name).is_file())


STEP = Step(
    libraries=("av", "pillow", "pyarrow", "great-expectations", "tokenizers"),
    run=run,
    key_parts=key_parts,
)
