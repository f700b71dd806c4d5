"""One launch in its own process: `python -m tests.support.cluster.launch_process FOLDER`, as in a step's pod.

Reads FOLDER/launch.json; writes FOLDER/events_seen.jsonl (every event) and FOLDER/result.json (how it ended).
"""

import json
import logging
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from vl3.config.placement import PlacementConfig
from vl3.errors import Vl3Error
from vl3.launch.job import LaunchJob
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.trainjob import run
from vl3.launch.trainjob.kind import TRAINJOB
from vl3.launch.trainjob.run import launch_trainjob
from vl3.launch.trainjob.spec import build_trainjob

GPU_POD = PlacementConfig(
    pool="h200",
    nodes=1,
    processes_per_node=8,
    gpus_per_node=8,
    cpus_per_node=8.0,
    memory_gib=64.0,
    shm_gib=8.0,
    queue="h200",
    priority="vl3-normal",
    queue_timeout_seconds=600.0,
    max_retries=2,
)
QUICK = LaunchLimits(image_certain_seconds=3.0, container_config_seconds=5.0, unschedulable_seconds=10.0)
"""Limits for tests: what takes minutes for a team takes seconds here."""


_annotations: dict[str, dict[str, str]] = {}
"""By run: how its simulated pods behave. The launcher does not know of it, because no real job has any."""


def _annotated(job: LaunchJob, **keywords: Any) -> dict[str, Any]:
    manifest = build_trainjob(job, **keywords)
    (patch,) = manifest["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    replicated["template"]["spec"]["template"]["metadata"]["annotations"] = _annotations[job.run_id]
    return manifest


def job_of(settings: dict[str, Any], folder: Path, placement: PlacementConfig) -> LaunchJob:
    """The job of the settings' `run_id`, its pods as the settings' `annotations` say; also for the benchmarks."""
    named = {f"vl3.dev/{name}": str(value) for name, value in settings.get("annotations", {}).items()}
    _annotations[settings["run_id"]] = named
    run.TRAINJOB = replace(TRAINJOB, build=_annotated)
    return LaunchJob(
        name="train-video",
        backend="trainjob",
        run_id=settings["run_id"],
        stage="video",
        module="vl3.training.worker",
        document={},
        processes_per_node=1,
        threads_per_process=1,
        placement=placement,
        log_path=folder / "workers.log",
        events_path=folder / "events.jsonl",
        failure_path=folder / "failure.json",
        work_uri=(folder / "work").as_uri(),
        startup_seconds=settings.get("startup_seconds", 600.0),
        stall_seconds=settings.get("stall_seconds", 600.0),
        timeout_seconds=settings.get("timeout_seconds"),
    )


def main(folder: Path) -> int:
    """Launch, and write down what came of it."""
    settings = json.loads((folder / "launch.json").read_text(encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    stop_on_terminate()
    placement = replace(GPU_POD, **settings.get("placement", {}))
    job = job_of(settings, folder, placement)
    limits = replace(QUICK, **settings.get("limits", {}))
    seen = (folder / "events_seen.jsonl").open("a", encoding="utf-8")

    def tell(event: dict[str, Any]) -> None:
        seen.write(json.dumps(event | {"seen": time.time()}) + "\n")
        seen.flush()

    ended: dict[str, Any] = {"started": time.time()}
    code = 0
    try:
        result = launch_trainjob(job, tell, limits=limits)
        ended["result"] = {"attempts": result.attempts, "seconds_queued": result.seconds_queued}
    except Vl3Error as error:
        ended |= {"family": type(error).__name__, "message": str(error)}
        code = error.exit_code
    except SystemExit as stop:
        ended["message"] = "cancelled"
        code = int(str(stop.code))
    ended |= {"ended": time.time(), "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    (folder / "result.json").write_text(json.dumps(ended), encoding="utf-8")
    return code


def stop_on_terminate() -> None:
    """End on SIGTERM as a step does: an exception unwinds the launch."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
