"""Step: score the images of a collection, select, and write the datasets that are handed to training.

Scores are below the root of artifacts and not of the run, so that another recipe, or the same with another threshold,
runs no model again. On a cluster a RayJob with a pool of GPUs makes the scores; what follows here finds them made.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vl3.config.codec import to_dict
from vl3.config.curation import CurationConfig
from vl3.config.placement import CURATE
from vl3.config.stages import STARTUP_SECONDS
from vl3.curation.captions.rules import DEFAULT_RULES, read_caption_rules
from vl3.curation.flow import Executor
from vl3.curation.run import CurationPlace, clear, curate, weight_folders
from vl3.curation.scorer import version_digest
from vl3.data.build.source import source_digest
from vl3.launch.backend import launch
from vl3.launch.job import BUILDING, LaunchJob
from vl3.steps.import_scorers import SHARED_FILE
from vl3.store.artifacts import fetch
from vl3.store.uris import join_uri
from vl3.training.events import EVENTS_NAME
from vl3.training.outcome import FAILURE_NAME
from vl3.workflow.step import Step, StepOutcome, StepRequest, StepWork
from vl3.workflow.tracking import dataset_name

SCORES = "curation-scores"
"""Folder of all scores below the root of artifacts."""


def run(work: StepWork[CurationConfig]) -> StepOutcome:
    """Score, select and publish.

    Raises:
        ConfigError: the recipe does not fit its scorers.
        DataError: the input cannot be read, or too many images fail.
        StorageError: the store fails.
        ClusterError: Ray fails.
    """
    request = work.request
    place = place_of(request, work.work_uri)
    if request.config.steps and request.config.launch.backend != "local" and CURATE in request.config.placements:
        _score_on_cluster(work, place)
    with work.step_run() as step_run, work.fresh_folder("curation") as folder:
        clear(folder)
        with work.fresh_folder("indexes") as indexes:
            found = weight_folders(request.config, scorer_folders(request), request.data_uri, indexes)
            executor = _executor(request.config, found)
            facts = curate(request.config, place, found, folder, executor=executor, progress=work.progress)
        made = work.publish(folder, "curation", kind="curation")
        step_run.log_dataset(dataset_name(request), made.sha256, made.uri, context="curation")
        counts = {f"left/{row['step']}": float(row["left"]) for row in facts["funnel"]}
        step_run.log_metrics([(0, {"images": float(facts["images"]), "kept": float(facts["kept"]), **counts})])
    work.clear()
    kept = {name: facts[name] for name in ("images", "kept", "funnel")}
    return StepOutcome(outputs={"curation": made}, values=kept)


def place_of(request: StepRequest[CurationConfig], work_uri: str) -> CurationPlace:
    """Where a run's curation reads and keeps what it made."""
    return CurationPlace(
        data_uri=request.data_uri,
        work_uri=join_uri(work_uri, "curation"),
        scores_uri=join_uri(request.artifacts_uri, SCORES),
    )


def scorer_folders(request: StepRequest[CurationConfig]) -> dict[str, Path]:
    """The verified folder of the weights of each scorer."""
    folder = fetch(request.inputs["scorers"])
    shared: Mapping[str, str] = json.loads((folder / SHARED_FILE).read_text(encoding="utf-8"))
    return {name: folder / first for name, first in shared.items()}


def _executor(config: CurationConfig, folders: Mapping[str, Path]) -> Executor | None:
    if not config.launch.ray_workers:
        return None
    from vl3.curation.on_ray import OnRay, RayPlace

    return OnRay(config, folders, RayPlace(workers=config.launch.ray_workers))


def _score_on_cluster(work: StepWork[CurationConfig], place: CurationPlace) -> None:
    """Make the scores and states in a RayJob; what follows finds them, and would make what is missing."""
    request, folder = work.request, work.work_folder()

    def tell(event: dict[str, Any]) -> None:
        if event["type"] == "progress":
            work.progress(event["done"], event["total"], event["text"])

    document = {
        "config": to_dict(request.config),
        "data_uri": place.data_uri,
        "work_uri": place.work_uri,
        "scores_uri": place.scores_uri,
        "scorers": request.inputs["scorers"].to_dict(),
        "code_version": work.code_version,
    }
    stall_seconds = request.config.launch.task_stall_seconds
    job = LaunchJob(
        name=request.task,
        backend="rayjob",
        run_id=request.run_id,
        stage=CURATE,
        module="vl3.pod.curate",
        document=document,
        processes_per_node=1,
        threads_per_process=1,
        placement=request.config.placements[CURATE],
        log_path=request.log_path,
        events_path=folder / EVENTS_NAME,
        failure_path=folder / FAILURE_NAME,
        work_uri=work.work_uri,
        startup_seconds=max(STARTUP_SECONDS, stall_seconds),
        stall_seconds=stall_seconds,
        words=BUILDING,
    )
    launch(job, tell)


def key_parts(request: StepRequest[CurationConfig]) -> dict[str, Any]:
    """The data, and the recipe without what decides no result."""
    config = to_dict(request.config)
    for name in ("launch", "placements", "step_pods", "download_workers", "name", "videos"):
        config.pop(name)
    for scorer in config["scorers"].values():
        for name in ("gpus", "copies", "weights", "endpoint"):  # the weights' files are an input
            scorer.pop(name)
        for name in ("answers", "rules"):  # a folder, and a file whose content counts
            scorer["settings"].pop(name, None)
    for name, one in request.config.scorers.items():
        if one.endpoint is not None:
            config["scorers"][name]["model"] = one.endpoint.decisive()
            rules = read_caption_rules(Path(one.settings.get("rules") or DEFAULT_RULES))
            config["scorers"][name]["rules"] = version_digest({"rules": asdict(rules)})
    return {"curation": config, "source": source_digest(request.data_uri)}


STEP = Step(
    libraries=("faiss-cpu", "imagehash", "open_clip_torch", "pillow", "pyarrow", "rapidocr", "torch", "transformers"),
    run=run,
    key_parts=key_parts,
)
