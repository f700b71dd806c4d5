"""How soon `vl3 run logs` prints what a step's pod writes.

`make kind-up`, then `python -m benchmarks.step_logs`: about a minute. The pods are on the kind cluster, whose clock
is this machine's; Kubeflow Pipelines is a double. Each line has the time at which it was written.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from uuid import uuid4

from benchmarks.record import write_result
from tests.support.cluster.logged import LogsCommand, add_run, step_pod, writes
from tests.support.cluster.reach import KUBECONFIG, NAMESPACE, Cluster
from tests.support.cluster.simulated import wait_until
from tests.support.pipelines_server import PipelinesServer, serve

REPEATS = 5
LIMIT_SECONDS = 2.0


def main() -> None:
    """Measure each case and write benchmarks/results/step_logs.json."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VL3_")}
    cluster = Cluster({**inherited, "KUBECONFIG": str(KUBECONFIG)})
    with serve() as known:
        followed = [_followed(cluster, known) for _ in range(REPEATS)]
        first, later = [one[0] for one in followed], [delay for one in followed for delay in one[1:]]
        rows = [
            _row("followed before it starts: first line, since it was written", first),
            _row("the same: later lines, since each was written", later),
            _row("running: first line, since the command's start", _started(cluster, known, is_running=True)),
            _row("finished: first line, since the command's start", _started(cluster, known, is_running=False)),
        ]
    write_result(
        "step_logs",
        title="The log of a step",
        question="How soon does `vl3 run logs` print what a step's pod writes?",
        command="make kind-up && python -m benchmarks.step_logs",
        columns=["pod and line", "samples", "median, s", "longest, s", "limit, s"],
        rows=rows,
        notes=[
            "The pods run on the kind cluster of this machine, which has other work; Kubeflow Pipelines is a double "
            "that answers at once.",
            "The command's start imports the Kubeflow Pipelines client, finds the run and then its pod.",
        ],
        libraries=["kubernetes", "kfp"],
    )


def _row(what: str, seconds: list[float]) -> list[object]:
    return [what, len(seconds), round(median(seconds), 2), round(max(seconds), 2), LIMIT_SECONDS]


def _followed(cluster: Cluster, known: PipelinesServer) -> list[float]:
    """Seconds from writing to printing, of each line of a pod that starts while the command waits for it."""
    with _pod(cluster, known) as (name, kfp_id):
        command = LogsCommand(cluster, known.endpoint, name, "--follow")
        command.wait_for(note="waiting for a pod")
        cluster.apply(step_pod(name, kfp_id, writes(6, pause_seconds=0.5)))
        assert command.ended() == 0, command.notes
    return [printed - float(text.split()[0]) for printed, text in command.lines]


def _started(cluster: Cluster, known: PipelinesServer, *, is_running: bool) -> list[float]:
    """Seconds from the command's start to its first line, of a pod that writes on, or has ended."""
    seconds = []
    program = writes(100_000, pause_seconds=0.5) if is_running else writes(1000)
    phase, options = ("Running", ["--follow"]) if is_running else ("Succeeded", [])
    with _pod(cluster, known) as (name, kfp_id):
        cluster.apply(step_pod(name, kfp_id, program))
        wait_until(
            lambda: cluster.get("pods", f"--selector=pipeline/runid={kfp_id}")[0]["status"]["phase"] == phase, phase
        )
        for _ in range(REPEATS):
            begun = time.time()
            command = LogsCommand(cluster, known.endpoint, name, *options)
            command.wait_for(1)
            seconds.append(command.lines[0][0] - begun)
            command.stop()
    return seconds


@contextmanager
def _pod(cluster: Cluster, known: PipelinesServer) -> Iterator[tuple[str, str]]:
    """Name of a pod and of its run, and the run's id on the server; the pod is deleted in the end."""
    name = f"logs-{uuid4().hex[:8]}"
    try:
        yield name, add_run(known, name)
    finally:
        cluster.kubectl("--namespace", NAMESPACE, "delete", "pod", name, "--now", "--ignore-not-found")


if __name__ == "__main__":
    main()
