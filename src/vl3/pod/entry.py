"""Entry point of a TrainJob's pod: `python -m vl3.pod.entry`, the command of the runtimes `vl3-torch-<pool>`.

VL3_JOB has the job of a stage or of an evaluation (vl3.pod.work) and Trainer's torch policy sets PET_*. The pod runs
torchrun with its share of the workers, stores the events, lets the workers keep what they have when it has to stop, and
reports its result: by its exit code, and after a failure by the termination message {"family", "message"}. No torch in
this process.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType

from vl3.errors import FAMILIES, ClusterError, ConfigError, Vl3Error
from vl3.launch.grace import DEFAULT_GRACE_SECONDS, GRACE_VARIABLE, MARGIN_SECONDS
from vl3.lifeline import runner_mark
from vl3.pod.journal import EventJournal, event_line
from vl3.pod.network import PodPlace, interface_towards, wait_for_master
from vl3.pod.processes import PodOutput, PodProcesses
from vl3.pod.trainer_status import TrainerStatus
from vl3.pod.work import Job, PodWork, read_work
from vl3.system.commit import code_commit
from vl3.system.endings import MemoryKills
from vl3.system.rank import LAUNCHED_AT_VARIABLE, LAUNCHER_VARIABLE
from vl3.training.events import EVENTS_NAME
from vl3.training.heart import HEARTS_VARIABLE
from vl3.training.job import JOB_NAME
from vl3.training.outcome import FAILURE_NAME, STOPPED_EXIT_CODE, exit_hint, first_to_fail, recorded_failure
from vl3.training.watchdog import Watchdog

JOB_VARIABLE = "VL3_JOB"
TERMINATION_LOG = Path("/dev/termination-log")
"""Where Kubernetes reads a container's termination message."""
KILLED_EXIT_CODE = 128 + signal.SIGKILL
"""A worker was killed (SIGKILL)."""

_POLL_SECONDS = 0.2
_LAST_LINES = 15
_MAX_MESSAGE_BYTES = 4000

log = logging.getLogger("vl3.pod")


class StopSignal:
    """Records SIGTERM, which Kubernetes sends to a pod that it ends."""

    def __init__(self) -> None:
        self.received_at: float | None = None

    def __call__(self) -> bool:
        """Whether the pod has to stop."""
        return self.received_at is not None

    def install(self) -> None:
        """Handle SIGTERM and SIGINT as requests to write a checkpoint and stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        if self.received_at is None:
            self.received_at = time.monotonic()


class UnexpectedEndError(Exception):
    """The workers ended without an error of a known family."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Run this pod's share of a stage; returns the pod's exit status."""
    parser = argparse.ArgumentParser(prog="python -m vl3.pod.entry")
    parser.add_argument(
        "--termination-log", type=Path, default=TERMINATION_LOG, help="file for the reason of a failure"
    )
    termination_log = parser.parse_args(arguments).termination_log
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s pod {environ.get('PET_NODE_RANK', '?')} %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    stop = StopSignal()
    stop.install()
    try:
        return _run(environ, stop)
    except Vl3Error as error:
        family = next(name for name, kind in FAMILIES.items() if isinstance(error, kind))
        log.error("%s: %s", family, error)
        write_termination_message(termination_log, family, str(error))
        return error.exit_code
    except UnexpectedEndError as error:
        log.error("%s", error)
        write_termination_message(termination_log, "ClusterError", str(error))
        return error.exit_code
    except Exception as error:  # the last handler: report it where Kubernetes shows it
        log.error("ended by %s: %s", type(error).__name__, error, exc_info=error)
        write_termination_message(termination_log, "ClusterError", f"{type(error).__name__}: {error}")
        return 1


def write_termination_message(path: Path, family: str, message: str) -> None:
    """Write why the pod failed where Kubernetes reads it, cut to its limit; the log has the full message."""
    data = _message_bytes(family, message)
    while len(data) > _MAX_MESSAGE_BYTES:
        message = message[: -max(1, (len(data) - _MAX_MESSAGE_BYTES) // 4)]
        data = _message_bytes(family, message + " ...")
    try:
        path.write_bytes(data)
    except OSError as error:
        log.warning("%s: the termination message cannot be written (%s)", path, error)


def _message_bytes(family: str, message: str) -> bytes:
    return json.dumps({"family": family, "message": message}, ensure_ascii=False).encode()


def _run(environ: Mapping[str, str], stop: StopSignal) -> int:
    work, place = _read_work(environ), PodPlace.from_environment(environ)
    work.require_processes(place.num_processes, f"{place.nodes} x {place.processes_per_node}")
    work.require_sources()
    if work.is_done():  # by an attempt that was lost before its TrainJob could end
        log.info("the result of the %s is published already: nothing is left to do", work.what)
        return 0
    master = wait_for_master(place, should_stop=stop)
    if master is None:
        return STOPPED_EXIT_CODE
    with tempfile.TemporaryDirectory(prefix="vl3-pod-") as scratch:
        folder = Path(scratch)
        events, failure = str(folder / EVENTS_NAME), str(folder / FAILURE_NAME)
        local = replace(work.job, commit=code_commit(environ), events_path=events, failure_path=failure)
        local.write(folder / JOB_NAME)
        variables = dict(environ) | _worker_variables(local, place, master, environ) | {HEARTS_VARIABLE: scratch}
        output = PodOutput()
        kills = MemoryKills()
        processes = PodProcesses(_torchrun(work.module, folder), variables, output)
        with contextlib.ExitStack() as stack:
            journal = _open_journal(stack, local, environ, output) if place.node_rank == 0 else None
            watchdog = work.watchdog(folder)
            follow = _Follow(processes, journal, stop, watchdog, work.when_asked_to_stop)
            exit_code = follow.to_the_end(grace_seconds=_grace_seconds(environ))
        code = _outcome(exit_code, Path(local.failure_path), output.last_lines(), stop, kills)
        if journal is not None and journal.lost is not None:
            raise journal.lost
        return code


def _read_work(environ: Mapping[str, str]) -> PodWork:
    text = environ.get(JOB_VARIABLE)
    if not text:
        raise ConfigError(f"{JOB_VARIABLE} is not set: it must be the stage's job. Launch pods with a TrainJob of vl3.")
    return read_work(text, JOB_VARIABLE)


def _open_journal(stack: contextlib.ExitStack, job: Job, environ: Mapping[str, str], output: PodOutput) -> EventJournal:
    status = stack.enter_context(TrainerStatus(environ))

    def pass_on(event: dict[str, object]) -> None:
        output.write_line(event_line(event))
        status.take(event)

    return stack.enter_context(EventJournal(Path(job.events_path), job.work_uri, pass_on))


def _torchrun(module: str, folder: Path) -> list[str]:
    """The command; it reads nodes, processes, rank and master from PET_*."""
    command = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=static", "--max-restarts=0"]
    return [*command, f"--log-dir={folder}", "--module", module, "--job", str(folder / JOB_NAME)]


def _worker_variables(job: Job, place: PodPlace, master: str, environ: Mapping[str, str]) -> dict[str, str]:
    variables = place.torchrun_variables() | {
        "OMP_NUM_THREADS": str(job.config["launch"]["threads_per_process"]),
        "TOKENIZERS_PARALLELISM": "false",
        LAUNCHER_VARIABLE: runner_mark(os.getpid()),
        LAUNCHED_AT_VARIABLE: repr(time.time()),
    }
    interface = interface_towards(master)
    # By default gloo uses the address of the host name, which may be on another network.
    if interface and "GLOO_SOCKET_IFNAME" not in environ:
        variables["GLOO_SOCKET_IFNAME"] = interface
    return variables


def _grace_seconds(environ: Mapping[str, str]) -> float:
    """Time for a checkpoint after SIGTERM: the pod's own grace period, without what it needs to end itself."""
    text = environ.get(GRACE_VARIABLE, "")
    return (int(text) if text.isdigit() else DEFAULT_GRACE_SECONDS) - MARGIN_SECONDS


class _Follow:
    """Follows the workers of this pod to their end."""

    def __init__(
        self,
        processes: PodProcesses,
        journal: EventJournal | None,
        stop: StopSignal,
        watchdog: Watchdog,
        when_asked_to_stop: str,
    ) -> None:
        self._processes, self._journal, self._stop, self._watchdog = processes, journal, stop, watchdog
        self._when_asked_to_stop = when_asked_to_stop
        self._is_said = False

    def to_the_end(self, *, grace_seconds: float) -> int:
        """Run the workers to their end; returns torchrun's exit code.

        Raises:
            ClusterError: a rank of this pod has stalled; the launcher starts the work again from what it has kept.
        """
        with self._processes as processes:
            while True:
                exit_code = processes.wait(_POLL_SECONDS)
                if self._journal is not None:
                    self._journal.poll()
                if exit_code is not None:
                    return exit_code
                stall = self._watchdog.stalled(time.monotonic())
                if stall is not None:
                    log.error("the Python stacks of this pod's ranks:\n%s", stall.stacks)
                    raise ClusterError(f"{stall.text}\nThe stage goes on from its last checkpoint in another attempt.")
                if self._stop.received_at is not None:
                    self._ask_to_stop()
                    if time.monotonic() - self._stop.received_at > grace_seconds:
                        log.error(
                            "the workers did not end within %g s: what they kept before will be used", grace_seconds
                        )
                        return STOPPED_EXIT_CODE

    def _ask_to_stop(self) -> None:
        if not self._is_said:
            log.warning("asked to stop: %s", self._when_asked_to_stop)
            self._is_said = True
            if self._journal is not None:
                self._journal.upload_soon()
        self._processes.ask_workers_to_stop()


def _outcome(exit_code: int, failure_path: Path, lines: list[str], stop: StopSignal, kills: MemoryKills) -> int:
    """The pod's exit code.

    Raises:
        Vl3Error: what a worker recorded.
        UnexpectedEndError: a worker failed in another way.
    """
    if exit_code == 0:
        return 0
    recorded = recorded_failure(failure_path)
    if recorded is not None:
        raise recorded
    who, code = first_to_fail("\n".join(lines), exit_code)
    if stop() or code == STOPPED_EXIT_CODE:  # maybe another pod of the stage was asked to stop
        log.info("stopped on request: the next attempt goes on from what was kept")
        return STOPPED_EXIT_CODE
    shown = "\n  ".join(lines[-_LAST_LINES:])
    raise UnexpectedEndError(
        f"{who} ended with exit code {code}{exit_hint(who, code, lines, kills)}. Its last lines:\n  {shown}",
        KILLED_EXIT_CODE if code == -signal.SIGKILL else 1,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
