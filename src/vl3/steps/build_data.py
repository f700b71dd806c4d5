"""Step: build the dataset (shards and index), in units that appear one by one.

Its key has the data, the settings that decide their bytes, the tokenizer and the code, and nothing of the run. So a
dataset that was built once below a root of artifacts is used by every run and recipe that asks for the same.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from vl3.config.codec import to_dict
from vl3.config.placement import BUILD
from vl3.config.stages import STARTUP_SECONDS
from vl3.data.build.dataset import LIBRARIES, built_settings
from vl3.data.build.index import read_summary
from vl3.data.build.of_run import build_for_run, build_units_for_run
from vl3.data.build.source import source_digest
from vl3.data.corpus import CORPUS, is_corpus, read_corpus, write_corpus
from vl3.launch.backend import launch
from vl3.launch.job import BUILDING, LaunchJob
from vl3.models.vocabulary import TOKENIZER_FILE
from vl3.steps.request import Request, Work
from vl3.store.artifacts import fetch_file, read_manifest
from vl3.store.reference import Reference
from vl3.store.uris import join_uri, scheme_of
from vl3.training.events import EVENTS_NAME
from vl3.training.outcome import FAILURE_NAME
from vl3.workflow.step import Step, StepOutcome, execute
from vl3.workflow.tracking import dataset_name


def run(work: Work) -> StepOutcome:
    """Build and publish.

    Raises:
        DataError: the data have no annotations, or they cannot be read.
        StorageError: the data cannot be read, or the dataset cannot be written.
    """
    if is_corpus(work.request.data_uri):
        return _build_corpus(work)
    with work.step_run() as step_run, work.fresh_folder("tokenizer") as tokenizer_folder:
        fetch_file(work.request.inputs["start"], TOKENIZER_FILE, tokenizer_folder)
        dataset, facts = _build(work, tokenizer_folder)
        step_run.log_dataset(dataset_name(work.request), dataset.sha256, dataset.uri, context="build")
    work.clear()
    return StepOutcome(outputs={"dataset": dataset}, values=facts)


def _build_corpus(work: Work) -> StepOutcome:
    """Build each dataset as a run on it alone would, or use what such a run has built; publish their list."""
    records = {}
    for name, uri in read_corpus(work.request.data_uri).items():
        records[name], _ = execute(STEP, replace(work.request, data_uri=uri), work.progress, outputs=("dataset",))
    datasets = {name: record.outputs["dataset"] for name, record in records.items()}
    with work.step_run() as step_run, work.fresh_folder("corpus") as folder:
        write_corpus(folder, datasets)
        corpus = work.publish(folder, "dataset", kind=CORPUS)
        step_run.log_dataset(dataset_name(work.request), corpus.sha256, corpus.uri, context="build")
    work.clear()
    facts: dict[str, Any] = {"datasets": list(datasets)}
    for number in ("lines", "samples", "shards", "media_bytes"):
        facts[number] = sum(record.values[number] for record in records.values())
    for counts in ("splits", "problems"):
        facts[counts] = dict(sum((Counter(record.values[counts]) for record in records.values()), Counter()))
    return StepOutcome(outputs={"dataset": corpus}, values=facts)


def _build(work: Work, tokenizer_folder: Path) -> tuple[Reference, dict[str, Any]]:
    """The published dataset and its numbers."""
    request = work.request
    given: dict[str, Any] = {
        "config": request.config,
        "tokenizer_folder": tokenizer_folder,
        "identity": work.key,
        "progress": lambda done, total: work.progress(done, total, "samples decoded and packed"),
    }
    if scheme_of(request.artifacts_uri) == "file":
        folder = work.work_folder() / work.key
        if not folder.exists():
            build_for_run(request.data_uri, folder, **given)
        facts = _numbers(folder)
        return work.publish(folder, "dataset", kind="dataset"), facts
    if request.config.launch.backend != "local" and BUILD in request.config.placements:
        _make_units_on_ray(work)
    with work.fresh_folder("dataset") as folder:
        shards = build_units_for_run(request.data_uri, _units_uri(work), folder, **given)
        facts = _numbers(folder)
        return work.publish(folder, "dataset", kind="dataset", stored=shards), facts


def _units_uri(work: Work) -> str:
    return join_uri(work.work_uri, "dataset")


def _make_units_on_ray(work: Work) -> None:
    """Make the units in a RayJob; what follows here finds them made, and would make what is missing."""
    request, folder = work.request, work.work_folder()

    def tell(event: dict[str, Any]) -> None:
        if event["type"] == "progress":
            work.progress(event["done"], event["total"], event["text"])

    document = {
        "config": to_dict(request.config),
        "data_uri": request.data_uri,
        "work_uri": _units_uri(work),
        "start": request.inputs["start"].to_dict(),
        "identity": work.key,
        "code_version": work.code_version,
    }
    stall_seconds = request.config.launch.task_stall_seconds
    job = LaunchJob(
        name=request.task,
        backend="rayjob",
        run_id=request.run_id,
        stage=BUILD,
        module="vl3.pod.build",
        document=document,
        processes_per_node=1,
        threads_per_process=1,
        placement=request.config.placements[BUILD],
        log_path=request.log_path,
        events_path=folder / EVENTS_NAME,
        failure_path=folder / FAILURE_NAME,
        work_uri=work.work_uri,
        startup_seconds=max(STARTUP_SECONDS, stall_seconds),  # it reads all annotations before its first unit
        stall_seconds=stall_seconds,
        words=BUILDING,
    )
    launch(job, tell)


def _numbers(folder: Path) -> dict[str, Any]:
    summary = read_summary(folder)
    return {name: summary[name] for name in ("lines", "samples", "splits", "problems", "shards", "media_bytes")}


def key_parts(request: Request) -> dict[str, Any]:
    """What the data are, and the settings that decide what is made of them."""
    source: Any = source_digest(request.data_uri) if not is_corpus(request.data_uri) else _sources(request)
    return {"data": built_settings(request.config.data), "source": source}


def _sources(request: Request) -> dict[str, str]:
    return {name: source_digest(uri) for name, uri in read_corpus(request.data_uri).items()}


def decided_by(request: Request) -> dict[str, str]:
    """Of what the run starts from, only the tokenizer decides a dataset."""
    return {"tokenizer": read_manifest(request.inputs["start"]).files[TOKENIZER_FILE].sha256}


STEP = Step(libraries=LIBRARIES, run=run, key_parts=key_parts, decided_by=decided_by)
