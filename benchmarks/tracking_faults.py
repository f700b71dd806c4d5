"""What a tracking server that hangs, refuses or dies costs a step, and whether all metrics are there afterwards.

`python -m benchmarks.tracking_faults` takes about six minutes and writes results/tracking_faults.json. A stage notes
metrics in every step, more often than any recipe does, while a real MLflow server behind a proxy fails in the second
third of the steps. What is measured is how long each note holds up the one who makes it, and the CPU time of the thread
that sends.
"""

import argparse
import contextlib
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record import write_result
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mlflow_server import start_mlflow
from vl3.tracking.client import open_client
from vl3.tracking.runs import Tracker

ROOT = Path(__file__).parents[1]
SCRATCH = ROOT / "build" / "tracking-faults"
METRICS = ("loss", "grad_norm", "tokens_per_second", "mfu", "data_wait_share", "seconds/step")
_ALWAYS = 10**9
_MOST_STARTS = 4


class Server:
    """An MLflow server behind a proxy, which can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._port = self._stack.enter_context(start_mlflow(folder))
        self.proxy = FaultProxy(self._port)

    def kill(self) -> None:
        """End the server; what is sent to it meanwhile is refused."""
        self._stack.close()

    def start_again(self) -> None:
        """Start it with the same database, behind the same proxy."""
        self._port = self._stack.enter_context(start_mlflow(self._folder))
        self.proxy._upstream = self._port

    def close(self) -> None:
        """End both."""
        self.proxy.close()
        self._stack.close()


@contextmanager
def faulty(server: Server, name: str) -> Iterator[None]:
    """The server fails inside the block."""
    actions: dict[str, tuple[str, float | str]] = {
        "hangs": ("silence", 60.0),
        "refuses": ("refuse", "500"),
        "resets": ("reset", 0),
    }
    if name == "dies":
        server.kill()
        yield
        server.start_again()
    elif name in actions:
        action, value = actions[name]
        with server.proxy.fault(Fault(action, value=value, times=_ALWAYS)):
            yield
    else:
        yield


@dataclass
class Outcome:
    """One run of steps."""

    call_seconds: list[float]
    """How long each note held up its maker."""
    step_seconds: float
    """Duration of a step."""
    close_seconds: float
    """How long the end of the stage waited for what was not sent."""
    there_at_the_end: int
    """Metric values on the server when the stage ended."""
    there_afterwards: int
    """The same after the next step of the run, which sends what is left."""
    wanted: int


def run_stage(server: Server, name: str, *, steps: int, step_seconds: float) -> Outcome:
    """Note metrics in each step, of which the second third meets the fault."""
    endpoint, calls = server.proxy.endpoint, []
    leftovers = (SCRATCH / "untracked" / name).as_uri()

    def tracker() -> Tracker:
        return Tracker(endpoint, f"faults-{name}", name, name, leftovers_uri=leftovers)

    rows = [(step, dict.fromkeys(METRICS, float(step))) for step in range(1, steps + 1)]
    with ExitStack() as stack:
        step_run = stack.enter_context(tracker().step("train-video", key="k"))
        fault: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        for step, values in rows:
            if step == steps // 3:
                fault = faulty(server, name)
                fault.__enter__()
            time.sleep(step_seconds)
            started = time.perf_counter()
            step_run.log_metrics([(step, values)], times_seconds=[time.time()], may_drop=True)
            calls.append(time.perf_counter() - started)
            if step == 2 * steps // 3:
                fault.__exit__(None, None, None)
        step_run.log_metrics(rows, times_seconds=[time.time()] * len(rows))  # as a stage does at its end
        closing = time.perf_counter()
    close_seconds = time.perf_counter() - closing
    at_the_end = values_of(endpoint, name)
    for _ in range(_MOST_STARTS):
        if values_of(endpoint, name) == steps * len(METRICS):
            break
        with tracker().notes("finish") as notes:
            notes.set_tags({"done": "yes"})
    return Outcome(
        call_seconds=calls,
        step_seconds=step_seconds,
        close_seconds=close_seconds,
        there_at_the_end=at_the_end,
        there_afterwards=values_of(endpoint, name),
        wanted=steps * len(METRICS),
    )


def values_of(endpoint: str, name: str) -> int:
    """Different metric values of the stage's run that the server has."""
    client = open_client(endpoint)
    found = [one for one in client.search_experiments() if one.name == f"faults-{name}"]
    if not found:
        return 0
    runs = [run for run in client.search_runs([found[0].experiment_id]) if run.data.tags.get("vl3.kind") == "step"]
    if not runs:
        return 0
    return sum(len({one.step for one in client.get_metric_history(runs[0].info.run_id, name)}) for name in METRICS)


def row_of(name: str, outcome: Outcome) -> list[str]:
    """A row of the result."""
    mean, worst = statistics.fmean(outcome.call_seconds), max(outcome.call_seconds)
    return [
        name,
        f"{1e6 * mean:.0f}",
        f"{1e3 * worst:.2f}",
        f"{100 * mean / outcome.step_seconds:.3f}",
        f"{outcome.close_seconds:.1f}",
        f"{outcome.there_at_the_end} of {outcome.wanted}",
        f"{outcome.there_afterwards} of {outcome.wanted}",
    ]


def main() -> None:
    """Each fault in turn, and none for comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=300, help="steps of a stage")
    parser.add_argument("--step-seconds", type=float, default=0.2, help="duration of a step; tiny's are 0.15 to 0.3 s")
    parser.add_argument("--only", help="one fault, for a quick look; writes no result")
    arguments = parser.parse_args()
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    server, rows = Server(SCRATCH / "server"), []
    try:
        for name in ("nothing", "hangs", "refuses", "resets", "dies"):
            if arguments.only in (None, name):
                outcome = run_stage(server, name, steps=arguments.steps, step_seconds=arguments.step_seconds)
                rows.append(row_of(name, outcome))
                print(*rows[-1], sep="   ", flush=True)
    finally:
        server.close()
    if arguments.only is None:
        write_result(
            "tracking_faults",
            title="A tracking server that fails",
            question="What does a step wait for a tracking server that hangs, refuses or dies, and is anything lost?",
            command="python -m benchmarks.tracking_faults",
            columns=[
                "the server",
                "mean wait of a note (us)",
                "longest (ms)",
                "share of a step (%)",
                "wait at the end (s)",
                "values there at the end",
                "values there after the next step",
            ],
            rows=rows,
            notes=[
                f"{arguments.steps} steps of {arguments.step_seconds:g} s, {len(METRICS)} metrics in each; the server "
                "fails from the first third to the second. A real stage notes every tenth step or so, and not in the "
                "process that trains but in its launcher.",
            ],
            libraries=("mlflow",),
        )


if __name__ == "__main__":
    main()
