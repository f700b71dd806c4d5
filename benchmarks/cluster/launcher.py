"""Is the launcher quick, small and quiet? `python -m benchmarks.cluster.launcher` on the cluster of `make kind-up`.

Every launch is a separate process; an observer's watch records when its TrainJob appeared and when it was complete.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cluster.observer import Job, Observer
from benchmarks.cluster.pools import Pool, Pools
from benchmarks.record import ROOT, write_result
from tests.support.cluster.reach import KUBECONFIG, TRACKING_URI, Cluster

NAMESPACE = "launcher"
SHORT = "import time\nfor number in range(30):\n    print('line', number)\n    time.sleep(0.1)"
LONG = "import time\nfor number in range(10**6):\n    print('minute', number)\n    time.sleep(60)"
KINDS: dict[str, dict[str, Any]] = {
    "real": {"pool": "launcher-real", "gpus": 0},
    "simulated": {"pool": "launcher-simulated", "annotations": {"run-seconds": 3}},
}
IDLE: dict[str, dict[str, Any]] = {
    "running-simulated": {"pool": "launcher-simulated"},
    "running-real": {"pool": "launcher-real", "gpus": 0},
    "queued": {"pool": "launcher-simulated"},
}
"""What the idle launches run; the last one waits, because the first has the pool's only node."""


def start(folder: Path, settings: dict[str, Any]) -> "subprocess.Popen[bytes]":
    """Start a launch."""
    folder.mkdir(parents=True)
    (folder / "launch.json").write_text(json.dumps({"namespace": NAMESPACE, **settings}), encoding="utf-8")
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "benchmarks.cluster.launch_once", str(folder)], stderr=log)


def result_of(folder: Path) -> dict[str, Any]:
    """The record of a launch."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return found


def measure_times(folder: Path, repeats: int) -> None:
    """Launches one after the other: seconds from call to creation and from completion to return."""
    pools = [Pool("launcher-real", 0, SHORT), Pool("launcher-simulated", 1)]
    measured = []
    with Pools(Cluster({}), NAMESPACE, pools), Observer(NAMESPACE) as seen:
        for number in range(repeats):
            for kind, settings in KINDS.items():
                measured.append({"kind": kind, **_one(folder / f"{kind}-{number}", settings, seen)})
        tracked = {**KINDS["simulated"], "tracking_uri": TRACKING_URI}
        measured.append({"kind": "step", **_one(folder / "step", tracked, seen)})
    (folder / "times.json").write_text(json.dumps(measured, indent=1), encoding="utf-8")


def _one(folder: Path, settings: dict[str, Any], seen: Observer) -> dict[str, Any]:
    run_id = f"{folder.name}-{os.getpid()}"
    code = start(folder, {"run_id": run_id, **settings}).wait(300)
    if code:
        raise RuntimeError((folder / "log").read_text(encoding="utf-8"))
    result, job = result_of(folder), _complete(seen, run_id)
    result |= {
        "to_created": job.created - result["called"],
        "to_noticed": result["returned"] - (job.complete or 0.0),
        "load": os.getloadavg()[0],
    }
    print(folder.name, f"{result['to_created']:.2f} s, {result['to_noticed']:.2f} s", flush=True)
    return result


def _complete(seen: Observer, run_id: str) -> Job:
    """The observer's record, which may come a moment after the launcher's own."""
    for _ in range(100):
        for job in list(seen.jobs.values()):
            if job.run_id == run_id and job.complete is not None:
                return job
        time.sleep(0.1)
    raise TimeoutError(f"no complete TrainJob of {run_id} was seen")


def measure_idle(folder: Path, minutes: float) -> None:
    """Idle launches: one on the real worker, one on a simulated node, one in the queue."""
    pools = [Pool("launcher-real", 0, LONG), Pool("launcher-simulated", 1)]
    with Pools(Cluster({}), NAMESPACE, pools):
        processes = []
        for name, settings in IDLE.items():
            seconds = minutes * 60 + (5 if name == "queued" else 60)  # its node must not become free before its end
            process = start(folder / name, {"run_id": name, "stop_after_seconds": seconds, **settings})
            processes.append(process)
            time.sleep(10)
        for process in processes:
            process.wait()


def idle_sample(folder: Path, minutes: float) -> dict[str, Any]:
    """The first sample after that time."""
    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    samples: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return next(sample for sample in samples if sample["seconds"] >= minutes * 60)


def rows_of(times: Sequence[dict[str, Any]], idle: dict[str, dict[str, Any]], minutes: float) -> list[list[str]]:
    """What, measured, limit."""
    rows = []
    by_kind = {kind: [one for one in times if one["kind"] == kind] for kind in KINDS}
    places = {"real": "pod on the real worker", "simulated": "simulated pod"}
    for kind, found in by_kind.items():
        rows.append([f"call to TrainJob, {places[kind]}", _seconds(found, "to_created"), "1 s"])
    for kind, found in by_kind.items():
        rows.append([f"completion to return, {places[kind]}", _seconds(found, "to_noticed"), "2 s"])
    launches = [one for found in by_kind.values() for one in found]
    (step,) = (one for one in times if one["kind"] == "step")
    memory = max([one["peak_mb"] for one in launches] + [one["peak_mb"] for one in idle.values()])
    rows.append(["resident memory of a launcher, peak", f"{memory:.0f} MB", "120 MB"])
    rows.append(["the same with KFP's executor and the MLflow client", f"{step['peak_mb']:.0f} MB", ""])
    names = {
        "running-real": "a running job whose log is followed",
        "running-simulated": "a running job whose log cannot be read",
        "queued": "a job waiting in its queue",
    }
    for name, text in names.items():
        requests = sum(idle[name]["counts"].values())
        rows.append([f"requests in {minutes:g} minutes, {text}", str(requests), f"{5 * minutes:g}"])
    requests = [sum(one["counts"].values()) for one in launches]
    cpu = statistics.median(one["cpu_seconds"] for one in launches)
    rows.append(["requests of a whole short launch", f"{min(requests)} to {max(requests)}", ""])
    rows.append(["CPU of a whole short launch, without imports", f"{cpu:.2f} s", ""])
    rows.append(["imports, before the call", _seconds(launches, "import_seconds"), ""])
    return rows


def _seconds(found: Sequence[dict[str, Any]], name: str) -> str:
    values = sorted(one[name] for one in found)
    return f"{statistics.median(values):.2f} s (at most {values[-1]:.2f} s)"


def record(folder: Path, minutes: float) -> None:
    """Write benchmarks/results from the files in a folder."""
    times = json.loads((folder / "times.json").read_text(encoding="utf-8"))
    idle = {name: idle_sample(folder / "idle" / name, minutes) for name in IDLE}
    counts = "; ".join(
        f"{name}: " + ", ".join(f"{number} {what}" for what, number in sorted(sample["counts"].items()))
        for name, sample in idle.items()
    )
    repeats = sum(one["kind"] == "real" for one in times)
    loads = [one["load"] for one in times]
    path = write_result(
        "cluster_launcher",
        title="The launcher of TrainJobs",
        question="How long does one launch take, how much memory does it need and how many API requests does it send? "
        "Median of the launches, the slowest in brackets.",
        command="python -m benchmarks.cluster.launcher",
        columns=["what", "measured", "limit"],
        rows=rows_of(times, idle, minutes),
        notes=[
            f"{repeats} launches of each kind, each in its own process, against the kind cluster with the real "
            f"Trainer, JobSet and Kueue on the same machine; load {min(loads):.0f} to {max(loads):.0f} during the "
            "measurement. The call includes reading the kubeconfig and connecting.",
            "Creation and completion are observed by a separate watch of the API server; a negative time means that "
            "the launcher got the event first.",
            f"Requests are all that the launcher sent since its call, including the start ({counts}). A simulated "
            "kubelet has no logs, so the launcher asks again every two minutes.",
            "With KFP's executor and the MLflow client: the modules of the whole training step are loaded and its run "
            "on the MLflow server is open, as in the step's pod.",
        ],
        libraries=["kubernetes", "urllib3"],
    )
    print(path.relative_to(ROOT))


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--idle-minutes", type=float, default=30.0)
    parser.add_argument("--keep", type=Path, help="folder for measurements; those that it has are not repeated")
    arguments = parser.parse_args()
    os.environ["KUBECONFIG"] = str(KUBECONFIG)
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="vl3-launcher-"))
    folder.mkdir(exist_ok=True)
    if not (folder / "times.json").exists():
        measure_times(folder, arguments.repeats)
    if not (folder / "idle").exists():
        measure_idle(folder / "idle", arguments.idle_minutes)
    record(folder, arguments.idle_minutes)


if __name__ == "__main__":
    main()
