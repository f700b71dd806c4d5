"""The choice of how a stage's processes are started."""

from collections.abc import Callable
from typing import Any

from vl3.config.checks import require_choice
from vl3.launch.job import LaunchJob
from vl3.launch.local import launch_local

_BACKENDS = {"local": launch_local}


def launch(job: LaunchJob, backend: str, on_event: Callable[[dict[str, Any]], None]) -> None:
    """Run a job to its end on a backend; each event of its event file goes to `on_event`.

    Raises:
        ConfigError: the backend is unknown.
        Vl3Error: the job failed; the family says who has to act.
    """
    require_choice("launch", "backend", backend, tuple(_BACKENDS))
    _BACKENDS[backend](job, on_event)
