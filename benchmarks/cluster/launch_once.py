"""One launch in its own process: `python -m benchmarks.cluster.launch_once FOLDER`, as a step does it.

Reads FOLDER/launch.json; writes FOLDER/samples.jsonl (requests and memory now and then) and FOLDER/result.json.
"""

import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.cluster.launch_process import job_of, stop_on_terminate
from vl3.config.placement import PlacementConfig
from vl3.launch.job import LaunchJob
from vl3.launch.kube.client import Client
from vl3.launch.kube.connection import connect
from vl3.launch.trainjob.run import launch_trainjob


def pool_job(settings: dict[str, Any], folder: Path) -> LaunchJob:
    """A job on a pool of the benchmarks; `nodes`, `gpus` a node, `priority` and the pods' annotations may be set."""
    gpus = settings.get("gpus", 8)
    placement = PlacementConfig(
        pool=settings["pool"],
        nodes=settings.get("nodes", 1),
        processes_per_node=max(1, gpus),
        gpus_per_node=gpus,
        cpus_per_node=float(gpus) or 0.05,
        memory_gib=gpus * 8.0 or 0.25,
        shm_gib=0.0625,
        queue=settings["pool"],
        priority=settings.get("priority", "vl3-normal"),
        queue_timeout_seconds=7200.0,
        max_retries=2,
    )
    return job_of(settings, folder, placement)


def memory_mb() -> tuple[float, float]:
    """Resident memory of this process in MB: now, and the most so far."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = {name: int(kib) * 1024 / 1e6 for name, kib in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status)}
    return found["VmRSS"], found["VmHWM"]


def _import_all() -> float:
    """Load what a launch loads when it connects; seconds."""
    started = time.perf_counter()
    import kubernetes.client
    import kubernetes.config  # noqa: F401

    return time.perf_counter() - started


def _open_run(settings: dict[str, Any]) -> Callable[[dict[str, str]], None]:
    """Load what the whole training step loads and open its run on the MLflow server; the function that tags it."""
    import kfp.dsl.executor_main  # noqa: F401

    from vl3.tracking.runs import Tracker

    tracker = Tracker(settings["tracking_uri"], "vl3-benchmark", settings["run_id"], settings["run_id"])
    return tracker.step("train-video").set_tags


def _sample(client: Client, path: Path, every_seconds: float, stop_after_seconds: float) -> None:
    """Record requests and memory; after some time end this process like KFP does."""
    started = time.monotonic()
    with path.open("w", encoding="utf-8") as file:
        while True:
            passed = time.monotonic() - started
            rss, peak = memory_mb()
            sample = {"seconds": passed, "rss_mb": rss, "peak_mb": peak, "counts": dict(client.counts)}
            file.write(json.dumps(sample) + "\n")
            file.flush()
            if passed >= stop_after_seconds:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(min(every_seconds, stop_after_seconds - passed))


def main(folder: Path) -> int:
    """Launch, and record the times and requests."""
    settings = json.loads((folder / "launch.json").read_text(encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    stop_on_terminate()
    import_seconds = _import_all()
    job = pool_job(settings, folder)
    states: list[dict[str, Any]] = []
    tag = _open_run(settings) if "tracking_uri" in settings else None
    cpu, called = time.process_time(), time.time()
    client = Client(connect(namespace=settings["namespace"]))
    stop_after = settings.get("stop_after_seconds")
    if stop_after:
        arguments = (client, folder / "samples.jsonl", settings.get("sample_seconds", 30.0), stop_after)
        threading.Thread(target=_sample, args=arguments, daemon=True).start()
    code = 0

    def tell(event: dict[str, Any]) -> None:
        states.append(event)
        if tag is not None and event["type"] == "state":
            tag({"vl3.launch_state": event["state"], "vl3.launch_state_text": event["text"]})

    try:
        launch_trainjob(job, tell, client=client)
    except SystemExit as stop:
        code = int(str(stop.code))
    returned, rss_peak = time.time(), memory_mb()
    result = {
        "import_seconds": import_seconds,
        "called": called,
        "returned": returned,
        "cpu_seconds": time.process_time() - cpu,
        "rss_mb": rss_peak[0],
        "peak_mb": rss_peak[1],
        "counts": dict(client.counts),
        "states": [(event["state"], event["text"], event["time"]) for event in states if event["type"] == "state"],
    }
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
