"""Many launches at once on four simulated pools, and what an observer saw of them.

`python -m benchmarks.cluster.load FOLDER` runs one process's part of them.
"""

import json
import logging
import random
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster.launch_once import memory_mb, pool_job
from benchmarks.cluster.observer import Inversion, Observer
from benchmarks.cluster.pools import GPUS_PER_NODE, Pool, Pools
from tests.support.cluster.reach import KUBECONFIG, Cluster
from vl3.errors import Vl3Error
from vl3.launch.collect import collect
from vl3.launch.kube.client import Client
from vl3.launch.kube.connection import connect
from vl3.launch.trainjob.run import launch_trainjob

PRIORITIES = ("vl3-low", "vl3-normal", "vl3-high")
_SIZES = {1: 4, 2: 3, 4: 3, 8: 2, 16: 2}
"""Nodes of a launch, and how often."""
_PART_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Planned:
    """One launch to start."""

    run_id: str
    pool: str
    nodes: int
    priority: str
    start_seconds: float
    """Time after the start of the load."""
    run_seconds: int
    """How long its pods run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a load."""

    failed: list[str]
    """Messages of the launches that failed."""
    seconds: float
    to_created: list[float]
    """Seconds from each call to its TrainJob."""
    to_admitted: list[float]
    """Seconds from each call to the first reservation of quota."""
    to_noticed: list[float]
    """Seconds from each TrainJob's completion to the launch's return."""
    requests: dict[str, int]
    """Requests of all launches by method and kind."""
    cpu_seconds: float
    peak_mb: float
    """Memory of all launching processes together."""
    server_requests: int
    """Requests that the API server counted meanwhile, from any client."""
    gpu_share: float
    """Share of all GPUs that was in use on average."""
    overbooked: list[str]
    """Pools and nodes that at any moment assigned more GPUs than they have."""
    peaks: dict[str, int]
    preemptions: int
    refused: int
    """Workloads for which there was no room at first."""
    inversions: list[Inversion]
    created: int
    """TrainJobs that existed at any time."""
    leftovers: list[str]
    """Objects that are there after the jobs were collected."""


def plan_of(pools: Sequence[Pool], launches: int, seed: int, *, per_second: float) -> list[Planned]:
    """Launches of mixed sizes and priorities, spread over the pools by their size."""
    chance = random.Random(seed)
    plan = []
    for number in range(launches):
        pool = chance.choices(pools, [one.nodes for one in pools])[0]
        sizes = {nodes: weight for nodes, weight in _SIZES.items() if nodes <= pool.nodes}
        plan.append(
            Planned(
                run_id=f"load-{seed}-{launches}-{number}",
                pool=pool.name,
                nodes=chance.choices(list(sizes), list(sizes.values()))[0],
                priority=chance.choice(PRIORITIES),
                start_seconds=number / per_second,
                run_seconds=chance.randint(5, 20),
            )
        )
    return plan


def run_load(
    pools: Pools, plan: Sequence[Planned], folder: Path, environment: dict[str, str], *, parts: int
) -> Outcome:
    """Start the launches in a few processes, watch them to the end, and clean up."""
    before = server_requests(pools.cluster)
    with Observer(pools.namespace) as seen:
        began = time.time() + 5.0
        processes = [
            _start_part(folder / f"part-{number}", pools.namespace, plan[number::parts], began, environment)
            for number in range(parts)
        ]
        for process in processes:
            process.wait(_PART_SECONDS)
        ended = time.time()
        after = server_requests(pools.cluster)
        gpu_seconds, jobs = seen.gpu_seconds, dict(seen.jobs)
        client = Client(connect(namespace=pools.namespace, kubeconfig=KUBECONFIG))
        collect(0.0, client=client)
        leftovers = _wait_for_nothing(pools)
    found = [json.loads((folder / f"part-{number}" / "result.json").read_text()) for number in range(parts)]
    launches = {one["run_id"]: one for part in found for one in part["launches"]}
    admitted = {workload.job: workload.reserved[0] for workload in seen.workloads.values() if workload.reserved}
    by_run = {job.run_id: (name, job) for name, job in jobs.items()}
    well = {run: one for run, one in launches.items() if one["failed"] is None and run in by_run}
    gpus = {pool.name: pool.gpus for pool in pools.pools}
    return Outcome(
        failed=[f"{one['run_id']}: {one['failed']}" for one in launches.values() if one["failed"] is not None],
        seconds=ended - began,
        to_created=[by_run[run][1].created - one["called"] for run, one in well.items()],
        to_admitted=[admitted[by_run[run][0]] - one["called"] for run, one in well.items()],
        to_noticed=[one["returned"] - (by_run[run][1].complete or 0.0) for run, one in well.items()],
        requests=dict(sum((Counter(one["counts"]) for one in launches.values()), Counter())),
        cpu_seconds=sum(part["cpu_seconds"] for part in found),
        peak_mb=sum(part["peak_mb"] for part in found),
        server_requests=after - before,
        gpu_share=gpu_seconds / (ended - began) / sum(gpus.values()),
        overbooked=[key for key, peak in seen.peaks.items() if peak > gpus.get(key, GPUS_PER_NODE)],
        peaks={name: seen.peaks[name] for name in gpus},
        preemptions=sum(max(0, len(workload.reserved) - 1) for workload in seen.workloads.values()),
        refused=sum(workload.was_refused for workload in seen.workloads.values()),
        inversions=seen.inversions,
        created=len(jobs),
        leftovers=leftovers,
    )


def server_requests(cluster: Cluster) -> int:
    """Requests that the API server has finished or upgraded to watches since its start."""
    lines = cluster.kubectl("get", "--raw", "/metrics").splitlines()
    counts = (line.rpartition(" ")[2] for line in lines if line.startswith("apiserver_request_total{"))
    return round(sum(map(float, counts)))


def _start_part(
    folder: Path, namespace: str, plan: Sequence[Planned], began: float, environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    folder.mkdir(parents=True)
    document = {"namespace": namespace, "began": began, "plan": [asdict(one) for one in plan]}
    (folder / "plan.json").write_text(json.dumps(document), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.cluster.load", str(folder)]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def _wait_for_nothing(pools: Pools) -> list[str]:
    """What is left after the garbage collector had four minutes."""
    deadline = time.monotonic() + 240
    while (left := pools.leftovers()) and time.monotonic() < deadline:
        time.sleep(2)
    return left


def _run_part(folder: Path) -> None:
    """All launches of one process, each in a thread."""
    document = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    launches: list[dict[str, Any]] = []
    connect()  # its imports belong to the start
    cpu = time.process_time()
    threads = [threading.Thread(target=_run_one, args=(document, one, folder, launches)) for one in document["plan"]]
    for thread, one in zip(threads, document["plan"], strict=True):
        time.sleep(max(0.0, document["began"] + one["start_seconds"] - time.time()))
        thread.start()
    for thread in threads:
        thread.join()
    usage = {"cpu_seconds": time.process_time() - cpu, "peak_mb": memory_mb()[1], "launches": launches}
    (folder / "result.json").write_text(json.dumps(usage), encoding="utf-8")


def _run_one(document: dict[str, Any], one: dict[str, Any], folder: Path, launches: list[dict[str, Any]]) -> None:
    settings = {**one, "annotations": {"run-seconds": one["run_seconds"]}}
    states: list[str] = []
    called, failed = time.time(), None
    client = Client(connect(namespace=document["namespace"]))
    try:
        job = pool_job(settings, folder / one["run_id"])
        launch_trainjob(job, lambda event: states.append(event["state"]), client=client)
    except Vl3Error as error:
        failed = f"{type(error).__name__}: {error}"
    launches.append(
        {
            "run_id": one["run_id"],
            "called": called,
            "returned": time.time(),
            "failed": failed,
            "states": states,
            "counts": dict(client.counts),
        }
    )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    _run_part(Path(sys.argv[1]))
