"""What is launched: a Python module in several processes, with its log, its events and its deadline."""

from dataclasses import dataclass, field
from pathlib import Path

from vl3.config.checks import require_positive
from vl3.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchJob:
    """Processes that run one module together under torchrun."""

    name: str
    """What is run, for messages: the stage."""
    module: str
    """Module that each process runs, as with `python -m`."""
    arguments: tuple[str, ...]
    """Arguments of the module."""
    nodes: int
    """Machines."""
    processes_per_node: int
    """Processes on each machine."""
    threads_per_process: int
    """CPU threads of each process."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables added to those of this process."""
    log_path: Path
    """File to which the output of all processes is appended."""
    events_path: Path
    """File of JSON lines that the processes append events to."""
    failure_path: Path
    """File that a process writes when an error of a known family ends it."""
    timeout_seconds: float
    """Time after which the processes are stopped."""
    master_port: int | None = None
    """TCP port at which the processes meet; None takes a free one."""

    def __post_init__(self) -> None:
        require_positive(
            "launch",
            nodes=self.nodes,
            processes_per_node=self.processes_per_node,
            threads_per_process=self.threads_per_process,
            timeout_seconds=self.timeout_seconds,
        )
        if self.master_port is not None and not 0 < self.master_port < 65536:
            raise ConfigError(f"launch.master_port={self.master_port} is no TCP port. Use 1 to 65535, or none.")
