"""How busy the machine is while a step runs: MLflow's own monitors (psutil), shown as system metrics of the run."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vl3.tracking.step_run import RunNotes

SAMPLE_SECONDS = 10.0
"""Time between two samples: a sample takes about a millisecond."""
NEXT_STEP = -1
"""Step of a sample: one after the last that the run has, so that a resumed run draws on."""


@contextmanager
def sampled(notes: "RunNotes", *, every_seconds: float = SAMPLE_SECONDS) -> Iterator[None]:
    """Note the use of processors, memory, disk and network (and of GPUs, where NVIDIA's library is) while it lasts."""
    monitors, stop = _monitors(), threading.Event()
    _sample(monitors)  # the first use of a processor since nothing is 0 %

    def work() -> None:
        while not stop.wait(every_seconds):
            notes.log_metrics([(NEXT_STEP, _sample(monitors))], times_seconds=[time.time()], may_drop=True)

    thread = threading.Thread(target=work, name="vl3-machine", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(ImportError, RuntimeError):  # no GPU, or none that NVIDIA's library knows
        monitors.append(GPUMonitor())
    return monitors


def _sample(monitors: list[Any]) -> dict[str, float]:
    values: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        values |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return values
