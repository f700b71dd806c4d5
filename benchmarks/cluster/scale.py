"""What happens when many workflows launch at once? `python -m benchmarks.cluster.scale` after `make kind-up`.

125 simulated nodes of 8 GPUs in four pools; 10, 50 and 200 launches of 1 to 16 nodes contend for them.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cluster.load import Outcome, plan_of, run_load
from benchmarks.cluster.pools import Pool, Pools
from benchmarks.record import ROOT, write_result
from tests.support.cluster.reach import KUBECONFIG, Cluster

NODES = {"scale-a": 45, "scale-b": 35, "scale-c": 25, "scale-d": 20}
LAUNCHES = (10, 50, 200)
PER_PROCESS = 25
"""Launches per process: 200 separate processes would not fit into this machine's memory."""
COLUMNS = [
    "launches",
    "until all ended",
    "call to TrainJob, median (95 %)",
    "call to quota",
    "completion to return",
    "had to wait for quota",
    "preemptions",
    "GPUs in use, mean of 1,000",
    "requests per launch",
    "requests per second",
    "all requests at the API server",
    "CPU per launch",
    "memory per launch",
]


def row_of(launches: int, outcome: Outcome) -> list[str]:
    """One row of the table."""
    requests = sum(outcome.requests.values())
    return [
        str(launches),
        f"{outcome.seconds:.0f} s",
        _times(outcome.to_created),
        _times(outcome.to_admitted),
        _times(outcome.to_noticed),
        str(outcome.refused),
        str(outcome.preemptions),
        f"{1000 * outcome.gpu_share:.0f}",
        f"{requests / launches:.1f}",
        f"{requests / outcome.seconds:.1f}",
        f"{outcome.server_requests / outcome.seconds:.0f} a second",
        f"{outcome.cpu_seconds / launches:.2f} s",
        f"{outcome.peak_mb / launches:.0f} MB",
    ]


def check(launches: int, outcome: Outcome) -> list[str]:
    """Violations, which must never occur."""
    wrong = [f"failed: {text}" for text in outcome.failed]
    wrong += [f"more GPUs in use than exist: {key}" for key in outcome.overbooked]
    wrong += [f"left over: {text}" for text in outcome.leftovers]
    if outcome.created != launches:
        wrong.append(f"{outcome.created} TrainJobs were made for {launches} launches")
    return wrong


def _times(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return "".join(f"{one:.1f} s" for one in seconds)
    late = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
    return f"{statistics.median(seconds):.1f} s ({late:.1f} s)"


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--launches", type=int, nargs="+", default=list(LAUNCHES))
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--per-second", type=float, default=5.0, help="launches started in a second")
    parser.add_argument("--keep", type=Path, help="folder for measurements, to which later calls add rows")
    arguments = parser.parse_args()
    environment = {**os.environ, "KUBECONFIG": str(KUBECONFIG)}
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="vl3-scale-"))
    with Pools(Cluster({}), "scale", [Pool(name, nodes) for name, nodes in NODES.items()]) as pools:
        for launches in arguments.launches:
            plan = plan_of(pools.pools, launches, arguments.seed, per_second=arguments.per_second)
            parts = -(-launches // PER_PROCESS)
            load = os.getloadavg()[0]
            outcome = run_load(pools, plan, folder / str(launches), environment, parts=parts)
            wrong = check(launches, outcome)
            row = row_of(launches, outcome)
            document = {"outcome": asdict(outcome), "row": row, "wrong": wrong, "load": load}
            (folder / f"{launches}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
            print(f"seed {arguments.seed}", *row, *wrong, sep=" | ", flush=True)
    record(folder, arguments.seed, arguments.per_second)


def record(folder: Path, seed: int, per_second: float) -> None:
    """Write benchmarks/results from all loads in a folder."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    found.sort(key=lambda one: int(one["row"][0]))
    path = write_result(
        "cluster_scale",
        title="Many launches at once",
        question="125 simulated nodes of 8 GPUs in four pools; launches of 1 to 16 nodes and three priorities compete "
        "for them. Does every launch succeed, are there never more GPUs in use than exist, and what does a launch "
        "cost?",
        command="python -m benchmarks.cluster.scale",
        columns=COLUMNS,
        rows=[one["row"] for one in found],
        notes=[*_findings(found), *_conditions(found, seed, per_second)],
        libraries=["kubernetes"],
    )
    print(path.relative_to(ROOT))


def _findings(found: list[dict[str, Any]]) -> list[str]:
    wrong = [f"{one['row'][0]} launches: {text}" for one in found for text in one["wrong"]]
    peaks = "; ".join(
        f"{one['row'][0]}: "
        + ", ".join(f"{pool} {peak}/{NODES[pool] * 8}" for pool, peak in one["outcome"]["peaks"].items())
        for one in found
    )
    inversions = [each for one in found for each in one["outcome"]["inversions"]]
    passed = len({(each["lower"], each["time"]) for each in inversions})
    longest = max((math.inf if each["seconds"] is None else each["seconds"] for each in inversions), default=0.0)
    return [
        *(wrong or ["Every launch succeeded with one TrainJob; nothing was left after garbage collection."]),
        f"Peak of GPUs in use at any event of the pod watch, of those that exist: {peaks}.",
        f"Order: {passed} times a workload got quota while one of higher priority that was no larger waited in the "
        f"same queue. This lasted {longest:.1f} s at most, until the higher one got its quota or the lower one was "
        "evicted for it. Kueue's log shows why: BestEffortFIFO tries waiting workloads in order of priority, one per "
        "scheduling cycle. Quota that becomes free in between goes to the workload whose turn it is, and the next pass "
        "corrects that by preemption.",
    ]


def _conditions(found: list[dict[str, Any]], seed: int, per_second: float) -> list[str]:
    loads = ", ".join(f"{one['load']:.0f}" for one in found)
    return [
        f"Real API server, etcd, Trainer, JobSet, Kueue and scheduler, simulated nodes (kwok), all on the same machine "
        f"as the launches (load before each row: {loads}); {per_second:g} launches started per second, seed {seed}; "
        "pods run 5 to 20 s, a preempted one starts from the beginning.",
        f"Launches are threads, at most {PER_PROCESS} per process, and each has its own connections. For the cost of a "
        "process per launch, as in KFP, see the launcher's section.",
        "Times are observed by a separate process with its own watches, on the same machine and clock.",
    ]


if __name__ == "__main__":
    main()
