"""Watches one run: the child that runs kfp, the tasks' status files, timeouts, interruption, the end."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vl3.config.parameters import WorkflowParameters
from vl3.errors import ENDINGS, FAMILIES, ClusterError, InterruptError, StorageError, TerminatedError, Vl3Error
from vl3.lifeline import RUNNER_VARIABLE, runner_mark
from vl3.pipelines.local.display import open_display, tell
from vl3.pipelines.local.lock import RUN_FOLDER_VARIABLE
from vl3.pipelines.local.record import REQUEST, RunRecord
from vl3.pipelines.local.result import result_text
from vl3.pipelines.workflows import TaskLimit
from vl3.system.endings import MemoryKills
from vl3.system.files import atomic_write_json, open_to_append, storage_errors
from vl3.system.folders import own_folder, remove
from vl3.system.pace import Pace
from vl3.system.processes import end_marked, memory_bytes
from vl3.system.provenance import COMMAND_VARIABLE, command_line
from vl3.workflow.status import read_status

_POLL_SECONDS = 0.1
_MEMORY_EVERY_SECONDS = 5.0
_GRACE_SECONDS = 15.0
_IDLE_LIMIT_SECONDS = 1800.0
"""Between two tasks there is no progress to see, only imports: seconds here, minutes on a machine that is very busy."""
_FULL_DISK_BYTES = 1 << 20


class RunWatch:
    """One attempt at a run."""

    def __init__(
        self,
        folder: Path,
        workflow: str,
        parameters: WorkflowParameters,
        limits: dict[str, TaskLimit],
        temporary: Path,
    ) -> None:
        """Prepare the attempt.

        Args:
            folder: the run's.
            workflow: name of the workflow.
            parameters: the workflow's; the run id may be left out.
            limits: its tasks in order, with the limit of each.
            temporary: folder for files of this attempt only.
        """
        self._folder = folder
        self._temporary = temporary
        self._limits = limits
        self._record = RunRecord(folder / "run.json", workflow=workflow, parameters=parameters, tasks=list(limits))
        self._mark = runner_mark(os.getpid())
        self._statuses: dict[str, dict[str, Any]] = {}
        self._paces: dict[str, Pace] = {}
        self._seen: dict[str, Any] = {}
        self._kills = MemoryKills()
        self._signal = 0
        self._peak_memory_bytes = 0
        self._busy_at = self._measured_at = time.monotonic()

    def interrupt(self, signal_number: int) -> None:
        """Ask the run to stop; for a signal handler."""
        self._signal = signal_number

    def run(self) -> int:
        """Run to the end; returns the exit code. After a failure the last line on stderr is the message."""
        self._prepare()
        self._record.write()
        display = open_display(f"vl3 run {self._folder} ({self._record.run_id})")
        self._temporary.mkdir(mode=0o700)
        try:
            child = self._start()
            try:
                error = self._watch(child, display)
            finally:
                end_marked(f"{RUNNER_VARIABLE}={self._mark}", grace_seconds=_GRACE_SECONDS)
                child.wait()
        finally:
            self._refresh(display)
            display.close()
            shutil.rmtree(self._temporary, ignore_errors=True)
        return self._finish(error)

    def _prepare(self) -> None:
        """Remove files of an earlier attempt that only concern that attempt."""
        for name in ("status", "kfp"):
            with storage_errors(self._folder / name):
                remove(self._folder / name)
        parameters = {**self._record.data["parameters"], "run_id": self._record.run_id}
        request = {"workflow": self._record.data["workflow"], "parameters": parameters}
        atomic_write_json(self._folder / REQUEST, request)
        for name in ("logs", "status"):
            own_folder(self._folder / name)

    def _start(self) -> subprocess.Popen[bytes]:
        with os.fdopen(open_to_append(self._folder / "logs" / "runner.log"), "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "vl3.pipelines.local.child", str(self._folder)],
                cwd=self._folder,
                env=child_environment(os.environ, self._folder, self._mark, self._temporary),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _watch(self, child: subprocess.Popen[bytes], display: Any) -> Vl3Error | None:
        """Wait until the child ends; returns what went wrong."""
        while child.poll() is None:
            time.sleep(_POLL_SECONDS)
            self._refresh(display)
            if self._signal:
                return None
            error = self._overdue()
            if error is not None:
                return error
        self._refresh(display)
        return None if child.returncode == 0 else self._explain(child.returncode)

    def _refresh(self, display: Any) -> None:
        for path in (self._folder / "status").glob("*.json"):
            status = read_status(path)
            if status is not None:
                self._statuses[status["task"]] = status
                self._record.update_task(status)
        display.update(self._record.data["tasks"], self._statuses)
        if time.monotonic() - self._measured_at > _MEMORY_EVERY_SECONDS:
            self._measured_at = time.monotonic()
            self._peak_memory_bytes = max(self._peak_memory_bytes, memory_bytes(f"{RUNNER_VARIABLE}={self._mark}"))
            self._record.write()

    def _overdue(self) -> ClusterError | None:
        """The error of a task that has hung, or of a workflow in which no task starts."""
        now = time.monotonic()
        for task in self._record.data["tasks"]:
            if task["state"] == "running":
                self._busy_at = now
                if self._pace(task["name"], now).is_stalled(now):
                    return self._hung(task["name"], now)
        if now - self._busy_at > _IDLE_LIMIT_SECONDS:
            return ClusterError(
                f"no task has started for {_IDLE_LIMIT_SECONDS:.0f} s: the workflow hung between tasks and was "
                f"stopped. Check {self._log('runner')}."
            )
        return None

    def _pace(self, name: str, now: float) -> Pace:
        """The pace of a running task; what its status shows of its progress is the sign."""
        seen = self._statuses.get(name, {}).get("progress")
        if name not in self._paces:
            self._paces[name], self._seen[name] = Pace(self._limits[name].stall_seconds, now), seen
        elif seen != self._seen[name]:
            self._seen[name] = seen
            self._paces[name].sign(now)
        return self._paces[name]

    def _hung(self, name: str, now: float) -> ClusterError:
        pace = self._paces[name]
        return ClusterError(
            f"{name} has made no progress for {pace.silence_seconds(now):.0f} s, so it has hung and was stopped. Check "
            f"its log, {self._log(name)}, then start the same run again: finished work is kept. If it may take that "
            f'long, add SET="{self._limits[name].setting}={math.ceil(2 * pace.limit_seconds)}".'
        )

    def _explain(self, returncode: int) -> Vl3Error:
        """Why the child ended: the error that a task recorded, otherwise what can be seen from outside."""
        if -returncode in (signal.SIGTERM, signal.SIGINT):
            asked = TerminatedError if returncode == -signal.SIGTERM else InterruptError
            return asked(
                f"the workflow's process ended on request ({signal.Signals(-returncode).name}). Finished work is kept: "
                "start the same run again to continue."
            )
        for name in self._limits:  # in the workflow's order: the exit handler reports another's failure
            status = self._statuses.get(name, {"state": "waiting"})
            if status["state"] == "failed":
                family = (FAMILIES | ENDINGS).get(status["error"]["family"], Vl3Error)
                return family(self._told(name, status["error"]["message"]))
            if status["state"] == "running":
                if shutil.disk_usage(self._folder).free < _FULL_DISK_BYTES:
                    return StorageError(
                        f"{name} failed and could not write its status, because the disk of {self._folder} is full. "
                        f"Free space there, then start the same run again. (log: {self._log(name)})"
                    )
                return ClusterError(
                    f"{name} ended without a status: its process was killed; who did it is not known: "
                    f"{self._kills.evidence()}. Check {self._log(name)} and the kernel's log, then start the same run "
                    "again."
                )
        return Vl3Error(
            f"the workflow's process ended with status {returncode} outside of any task. Check {self._log('runner')}."
        )

    def _told(self, name: str, message: str) -> str:
        """A task's message, with the task's name and its log on the first line unless that has them already."""
        headline, *details = message.splitlines() or [""]
        name_part = "" if headline.startswith(name) else f"{name}: "
        log_part = "" if str(self._log(name)) in headline else f" (log: {self._log(name)})"
        return "\n".join([f"{name_part}{headline}{log_part}", *details])

    def _finish(self, error: Vl3Error | None) -> int:
        exit_code = 128 + self._signal if self._signal else error.exit_code if error else 0
        is_on_request = self._signal or isinstance(error, TerminatedError)
        state = "interrupted" if is_on_request else "failed" if error else "succeeded"
        details = {"family": type(error).__name__, "message": str(error)} if error else None
        self._record.finish(state=state, exit_code=exit_code, error=details, peak_memory_bytes=self._peak_memory_bytes)
        self._print_end(state, error)
        return exit_code

    def _print_end(self, state: str, error: Vl3Error | None) -> None:
        data = self._record.data
        reused = sum(task["reused"] for task in data["tasks"])
        print(
            f"{state} in {data['seconds']:.1f} s ({reused} of {len(data['tasks'])} tasks reused, "
            f"{data['overhead_seconds']:.1f} s outside of the steps); record: {self._folder / 'run.json'}",
            flush=True,
        )
        page = self._folder / "report" / "report.html"
        if state == "succeeded" and page.exists():
            print(f"{result_text(page.with_name('report.json'))}\nreport: {page}", flush=True)
        if error is not None:
            tell(error)
        elif state == "interrupted":
            print(
                "interrupted: no process of the run is left. Finished work is kept; run the same command again to "
                "resume.",
                file=sys.stderr,
            )

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"


def child_environment(environ: Mapping[str, str], folder: Path, mark: str, temporary: Path) -> dict[str, str]:
    """The environment of a run's processes: this one's, with the run's marks and without what slows Python down."""
    kept = {name: value for name, value in environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        "OMP_NUM_THREADS": "1",
        "VL3_MLFLOW_TEMPLATE": str(Path(sys.prefix) / "share" / "vl3" / "mlflow.db"),
        **kept,
        COMMAND_VARIABLE: command_line(sys.orig_argv),
        RUNNER_VARIABLE: mark,
        RUN_FOLDER_VARIABLE: str(folder),
        "VL3_TASK_LOG_DIR": str(folder / "logs"),
        "TMPDIR": str(temporary),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
    }
