"""A stage as processes on this machine: starts torchrun, follows it to its end, and leaves no process behind."""

import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vl3.errors import ClusterError, TerminatedError
from vl3.launch.job import LaunchJob, LaunchResult
from vl3.launch.stall import Overdue, StallWatch
from vl3.launch.tail import EventTail, last_lines
from vl3.lifeline import runner_mark
from vl3.system.endings import MemoryKills
from vl3.system.files import atomic_write_json, open_to_append, storage_errors
from vl3.system.processes import end_marked
from vl3.system.rank import LAUNCHED_AT_VARIABLE, LAUNCHER_VARIABLE
from vl3.training.heart import HEARTS_VARIABLE
from vl3.training.job import JOB_NAME
from vl3.training.outcome import exit_hint, first_to_fail, recorded_failure, was_asked_to_end
from vl3.training.watchdog import Stall, Watchdog

log = logging.getLogger("vl3.launch")

LAUNCH_VARIABLE = "VL3_LAUNCH"
"""Unique for each launch: its processes are found by it, and ended."""

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 30.0
_LAST_LINES = 20
_ADDRESS = "127.0.0.1"


def launch_local(job: LaunchJob, on_event: Callable[[dict[str, Any]], None]) -> LaunchResult:
    """Run a job's processes on this machine until all have ended.

    However this call ends (return, error, KeyboardInterrupt, SystemExit raised by a signal handler), none of the
    processes is left. On an interrupt they first get SIGTERM and time to write a checkpoint.

    Args:
        job: what to run.
        on_event: called in this thread for each event that the processes append to job.events_path.

    Raises:
        Vl3Error: the error that a process recorded in job.failure_path, in its own family.
        ClusterError: the stage made no progress any more, or a process failed in another way. If a rank stalled, it
            was started again from its checkpoint, and stalled again without a new step.
        TerminatedError: somebody asked its processes to end.
        ConfigError: it ran longer than the limit that job.timeout_seconds sets.
    """
    log_path = _log_path(job)
    with storage_errors(log_path):
        log_path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(_job_path(job), job.document)
    tail = EventTail(job.events_path)
    started, attempts, stalled_at = time.monotonic(), 0, -1
    while True:
        attempts += 1
        log_offset = log_path.stat().st_size if log_path.is_file() else 0
        kills = MemoryKills()
        end = _attempt(job, tail, on_event)
        if not isinstance(end, Stall):
            break
        log.error("%s: %s", job.name, end.text)
        if end.step <= stalled_at:
            raise ClusterError(
                f"{job.name}: {end.text}\nIt stalled before at step {stalled_at + 1} and came no further, so it is not "
                f"started once more. All stacks are in {log_path}. Start the run again on another machine, or raise "
                "engine.rank_stall_seconds if a step may take that long."
            )
        stalled_at = end.step
        text = f"{end.text.splitlines()[0]} All stacks are in {log_path}. Started again from the checkpoint"
        on_event({"type": "note", "text": text, "time": time.time()})
    if isinstance(end, Overdue):
        raise end.family(f"{job.name}: {end.text} (log: {log_path}). {end.remedy}")
    if end != 0:
        raise _failure(job, end, last_lines(log_path, log_offset, count=400), kills)
    seconds = time.monotonic() - started
    log.info("%s ended after %.1f s", job.name, seconds)
    return LaunchResult(attempts=attempts, seconds_queued=0.0, seconds_running=seconds, states=())


def _attempt(job: LaunchJob, tail: EventTail, on_event: Callable[[dict[str, Any]], None]) -> int | Overdue | Stall:
    """Start the processes and follow them to their end; returns torchrun's exit code, or why they were stopped."""
    port = _free_port()
    token = f"{LAUNCH_VARIABLE}={runner_mark(os.getpid())}:{secrets.token_hex(8)}"
    with storage_errors(job.failure_path):
        job.failure_path.unlink(missing_ok=True)
    # torchrun creates a folder for logs even if it redirects none.
    with tempfile.TemporaryDirectory(prefix="vl3-torchrun-") as scratch:
        try:
            end = _run(job, _command(job, port, scratch), token, Path(scratch), tail, on_event)
        finally:
            end_marked(token, grace_seconds=0)
    for event in tail.read():
        on_event(event)
    return end


def _log_path(job: LaunchJob) -> Path:
    return job.log_path or job.events_path.with_name("workers.log")


def _job_path(job: LaunchJob) -> Path:
    return job.events_path.with_name(JOB_NAME)


def _run(
    job: LaunchJob,
    command: list[str],
    token: str,
    hearts: Path,
    tail: EventTail,
    on_event: Callable[[dict[str, Any]], None],
) -> int | Overdue | Stall:
    """Start torchrun and follow it; returns its exit code, or why it was stopped."""
    watch = StallWatch(job, time.monotonic())
    watchdog = Watchdog(hearts, margin_seconds=job.rank_stall_seconds, patience_seconds=job.stall_seconds)
    grace_seconds = _GRACE_SECONDS
    with os.fdopen(open_to_append(_log_path(job)), "ab") as output:
        # Its own session: Ctrl-C must reach the workers only through this process, and once.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(job, token) | {HEARTS_VARIABLE: str(hearts)},
            start_new_session=True,
        )
    try:
        while True:
            exit_code = _wait_a_moment(process)
            for event in tail.read():
                watch.take(event, time.monotonic())
                on_event(event)
            if exit_code is not None:
                return exit_code
            overdue = watch.overdue(time.monotonic())
            if overdue is not None:
                _log_stacks(job, watchdog.stacks())
                return overdue
            stall = watchdog.stalled(time.monotonic())
            if stall is not None:
                _log_stacks(job, stall.stacks)
                grace_seconds = 0.0  # a rank that has stalled writes no checkpoint, and the others wait for it
                return stall
    finally:
        if process.poll() is None:
            log.warning("%s was interrupted or has hung: stopping its processes", job.name)
            end_marked(token, grace_seconds=grace_seconds)
            process.wait()


def _log_stacks(job: LaunchJob, stacks: str) -> None:
    """Append the stacks of the ranks to the log of the stage."""
    with os.fdopen(open_to_append(_log_path(job)), "ab") as output:
        output.write(f"{stacks}\n".encode())


def _wait_a_moment(process: "subprocess.Popen[bytes]") -> int | None:
    try:
        return process.wait(timeout=_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _command(job: LaunchJob, port: int, scratch: str) -> list[str]:
    return [
        job.python or sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={job.processes_per_node}",
        "--nnodes=1",
        "--node-rank=0",
        "--rdzv-backend=static",
        f"--master-addr={_ADDRESS}",
        f"--master-port={port}",
        "--max-restarts=0",
        f"--log-dir={scratch}",
        "--module",
        job.module,
        "--job",
        str(_job_path(job)),
    ]


def _environment(job: LaunchJob, token: str) -> dict[str, str]:
    """The environment of the workers: this process's, and the variables that they need in addition."""
    name, _, value = token.partition("=")
    environment = os.environ | {
        "OMP_NUM_THREADS": str(job.threads_per_process),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),  # avoids resolving the host's name
        "TOKENIZERS_PARALLELISM": "false",
        LAUNCHER_VARIABLE: runner_mark(os.getpid()),
        LAUNCHED_AT_VARIABLE: repr(time.time()),
        name: value,
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # recompiling torch doubles the start-up time
    return environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        return probe.getsockname()[1]


def _failure(job: LaunchJob, exit_code: int, lines: list[str], kills: MemoryKills) -> Exception:
    """The error that a process recorded, otherwise one made from the log."""
    recorded = recorded_failure(job.failure_path)
    if recorded is not None:
        return recorded
    text = "\n".join(lines)
    if "EADDRINUSE" in text or "address already in use" in text.lower():
        return ClusterError(
            f"{job.name}: another process took the rendezvous port of its processes between choosing and using it "
            f"(log: {_log_path(job)}). Start it again: it will choose another free port."
        )
    who, code = first_to_fail(text, exit_code)
    if was_asked_to_end(code, lines):  # all ranks then end alike, and torchrun names whichever it sees first
        return TerminatedError(
            f"{job.name} ended on request: one of its processes got SIGTERM or SIGINT. Start the run again: it "
            f"{job.words.resumes} (log: {_log_path(job)})."
        )
    shown = "\n  ".join(lines[-_LAST_LINES:])
    return ClusterError(
        f"{job.name} failed: {who} ended with exit code {code}{exit_hint(who, code, lines, kills)}. The log is "
        f"{_log_path(job)}; its last lines:\n  {shown}"
    )
