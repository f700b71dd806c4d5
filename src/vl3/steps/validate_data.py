"""Step: let Great Expectations judge the built dataset before anything is planned or trained on it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vl3.config.codec import to_dict
from vl3.config.stages import StageConfig
from vl3.steps.datasets import fetch_indexes
from vl3.steps.request import Request, Work, trained_by
from vl3.store.artifacts import fetch
from vl3.validation.result import RESULT_FILE
from vl3.workflow.step import Step, StepOutcome
from vl3.workflow.tracking import dataset_name


def run(work: Work) -> StepOutcome:
    """Judge the index and pass the dataset on. The validation report is published for a refused dataset, too.

    The dataset is an output, so that no task can take one that was not judged.

    Raises:
        DataError: the dataset is refused; the message lists every bad line with its reason.
    """
    dataset = work.request.inputs["built"]
    with work.step_run() as step_run, work.fresh_folder("index") as folder:
        report, result = _validate(work, fetch_indexes(dataset, folder))
        step_run.log_text((fetch(report) / RESULT_FILE).read_text(encoding="utf-8"), RESULT_FILE)
        result.require_passed()
        step_run.log_dataset(dataset_name(work.request), dataset.sha256, dataset.uri, context="validation")
    work.clear()
    return StepOutcome(outputs={"dataset": dataset, "validation": report}, values=result.facts)


def _validate(work: Work, folders: Mapping[str, Path]) -> tuple[Any, Any]:
    """Validate the index; returns the reference of the published report, and the result, with the report's folder."""
    from vl3.validation.suite import validate_datasets

    work.progress(1, 1, "judging the index")
    with work.fresh_folder("validation") as folder:
        result = validate_datasets(folders, work.request.config, folder, stages=trained_by(work.request))
        docs = result.docs_folder.relative_to(folder)
        report = work.publish(folder, "validation", kind="validation-report")
    return report, dataclasses.replace(result, docs_folder=fetch(report) / docs)


def key_parts(request: Request) -> dict[str, Any]:
    """How the data were prepared and what they are used for; what they are is in the input."""
    config = request.config
    data = to_dict(config.data)
    data.pop("build_workers")
    return {
        "data": data,
        "stages": {name: _asked(config.stages[name]) for name in trained_by(request)},
        "samples_per_task": config.evaluation.samples_per_task,
    }


def _asked(stage: StageConfig) -> dict[str, Any]:
    """The fields of a stage that concern the data, unlike its steps and learning rates."""
    row = to_dict(stage)
    return {name: row[name] for name in ("mixture", "missing", "image_merge_size", "difffp")}


STEP = Step(
    libraries=("pyarrow", "great-expectations"),
    run=run,
    key_parts=key_parts,
)
