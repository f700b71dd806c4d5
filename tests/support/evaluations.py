"""An evaluation as a job, with what a run would have published before it."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.support.start import publish_start
from vl3.config.codec import to_dict
from vl3.config.run import RunConfig
from vl3.evaluation.job import EvaluationJob
from vl3.launch.job import EVALUATING, LaunchJob
from vl3.models.start import assemble
from vl3.models.weights import save_model
from vl3.pod.sources import EVALUATION_ENTRIES
from vl3.store.artifacts import publish
from vl3.store.bases import base_folder
from vl3.store.reference import Reference
from vl3.store.uris import join_uri
from vl3.workflow.code import code_version

IDENTITY = "test"


def make_checkpoint(folder: Path, config: RunConfig) -> Path:
    """A checkpoint of the last stage: the bases with a projector of another seed."""
    vision, language = base_folder(config.model.vision_base), base_folder(config.model.language_base)
    save_model(assemble(vision, language, seed=5), language, folder)
    stage = list(config.stages)[-1]
    (folder / "run.json").write_text(json.dumps({"stage": stage, "config": to_dict(config)}))
    return folder


def publish_inputs(root: str, config: RunConfig, dataset: Path, checkpoint: Path, work: Path) -> dict[str, Reference]:
    """The artifacts that an evaluation reads, below a URI; dataset and checkpoint are copied."""
    vision, language = base_folder(config.model.vision_base), base_folder(config.model.language_base)
    inputs = {"start": publish_start(root, vision, language, work)}
    for name, folder in (("dataset", dataset), ("checkpoint", checkpoint)):
        shutil.copytree(folder, work / name)
        inputs[name] = publish(work / name, join_uri(root, name), kind=name, created_by={})
    return inputs


def evaluation_job(root: str, config: RunConfig, inputs: dict[str, Reference]) -> EvaluationJob:
    """The model before training and the checkpoint, as pods get the job."""
    stage = list(config.stages)[-1]
    return EvaluationJob(
        config=to_dict(config),
        stage_order=list(config.stages),
        models=[
            {"name": "before", "checkpoint": None},
            {"name": stage, "checkpoint": inputs["checkpoint"].to_dict()},
        ],
        start=inputs["start"].to_dict(),
        dataset=inputs["dataset"].to_dict(),
        benchmarks=[],
        judging={},
        work_uri=join_uri(root, "work"),
        identity=IDENTITY,
        code_version=code_version(EVALUATION_ENTRIES),
        commit="",
        events_path="",
        failure_path="",
    )


def local_launch(job: EvaluationJob, folder: Path, *, processes: int = 2) -> LaunchJob:
    """The job as processes on this machine, as the step launches it."""
    events, failure = folder / "events.jsonl", folder / "failure.json"
    local = replace(job, events_path=str(events), failure_path=str(failure))
    values: dict[str, Any] = {"log_path": folder / "evaluation.log", "events_path": events, "failure_path": failure}
    return LaunchJob(
        name="evaluate",
        backend="local",
        run_id="test",
        stage="evaluation",
        module="vl3.evaluation.worker",
        document=asdict(local),
        processes_per_node=processes,
        threads_per_process=1,
        packs_per_step=None,
        work_uri=job.work_uri,
        words=EVALUATING,
        **values,
    )
