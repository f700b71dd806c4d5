"""Entry point of a step process: components call it with plain strings and paths.

The environment, the streams and the logging of a step are set up only here.
"""

import atexit
import importlib
import logging
import os
import signal
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from vl3.config.parameters import WorkflowParameters
from vl3.errors import InterruptError, TerminatedError, Vl3Error, family_name
from vl3.lifeline import start_lifeline
from vl3.store.reference import read_reference, write_reference
from vl3.system.commit import code_commit
from vl3.system.files import open_to_append, resource_errors
from vl3.tracking.environment import MLFLOW_ENVIRONMENT
from vl3.workflow.code import read_pins
from vl3.workflow.failures import note_failure, refuse_blind_retry
from vl3.workflow.record import StepRecord
from vl3.workflow.status import StatusFile
from vl3.workflow.step import Step, StepRequest, execute, make_request

log = logging.getLogger("vl3.step")

_QUIET_LIBRARIES = {"GX_ANALYTICS_ENABLED": "false", "TOKENIZERS_PARALLELISM": "false", **MLFLOW_ENVIRONMENT}
_INJECTED = ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


def run_step(
    name: str,
    *,
    workflow: Mapping[str, Any],
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    part: str = "",
) -> None:
    """Run one step of the workflow in this process.

    Args:
        name: module below vl3.steps.
        workflow: the workflow's parameters (vl3.config.parameters) as plain data.
        inputs: path of the reference file of each input.
        outputs: path to write the reference of each output to.
        values: values from the workflow engine itself.
        part: which of several tasks of this step: for train_stage, the stage.

    Raises:
        Vl3Error: the step failed; the failure is recorded in the status file and the log.
    """
    start_lifeline(os.environ, kill_group=False)
    for variable, value in _QUIET_LIBRARIES.items():
        os.environ.setdefault(variable, value)
    task = task_name(name, part)
    _set_up_logging(task)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_request)
    status = StatusFile(_path_variable("VL3_RUN_FOLDER"), task)
    if os.environ.get("_KFP_RUNTIME") == "true":  # this process is kfp's executor and ends after the step
        atexit.register(_leave_quickly, status)
    parameters = None
    try:
        parameters = WorkflowParameters.from_dict(workflow)
        if not status.is_kept:
            refuse_blind_retry(parameters.artifacts_uri, parameters.run_id, task)
        request = _request(task, part, parameters, inputs or {}, values or {})
        record, is_reused = _run(name, request, status, outputs or {})
        for output, path in (outputs or {}).items():
            write_reference(record.output(output), Path(path))
    except BaseException as error:
        _record_failure(status, task, parameters, error)
        raise
    status.finish("reused" if is_reused else "done")
    log.info("%s is %s (%.1f s, key %s)", task, "reused" if is_reused else "done", record.seconds, record.key)


def task_name(name: str, part: str = "") -> str:
    """The task's name in the workflow, in its log and in its status.

    A part replaces the last word of the step: validate_data is `validate-data`; train_stage with the part
    `vision_adaptation` is `train-vision-adaptation`, import_arm with the part `clip` is `import-clip`.
    """
    return (f"{name.rpartition('_')[0]}-{part}" if part else name).replace("_", "-")


def _run(name: str, request: StepRequest[Any], status: StatusFile, outputs: Collection[str]) -> tuple[StepRecord, bool]:
    step: Step[Any] = importlib.import_module(f"vl3.steps.{name}").STEP
    log.info(
        "%s of run %s, recipe %s, overrides %s", request.task, request.run_id, request.config.name, request.overrides
    )
    with resource_errors(Path(request.artifacts_uri)):
        return execute(step, request, status.progress, outputs=outputs)


def _request(
    task: str, part: str, parameters: WorkflowParameters, inputs: Mapping[str, str], values: Mapping[str, Any]
) -> StepRequest[Any]:
    pins = _path_variable("VL3_TRAINER_REQUIREMENTS")
    return make_request(
        parameters,
        task=task,
        part=part,
        inputs={name: read_reference(Path(path)) for name, path in inputs.items()},
        values=dict(values),
        injected={name: os.environ[name] for name in _INJECTED if os.environ.get(name)},
        tracking_template=_path_variable("VL3_MLFLOW_TEMPLATE"),
        run_folder=_path_variable("VL3_RUN_FOLDER"),
        log_path=_log_path(task),
        library_pins=read_pins(pins) if pins else {},
        commit=code_commit(os.environ),
    )


def _set_up_logging(task: str) -> None:
    """Log to stderr; with a local runner all output of this process goes to the task's own log file."""
    path = _log_path(task)
    if path is not None:
        descriptor = open_to_append(path)
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    for noisy in ("great_expectations", "alembic", "urllib3", "httpx", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _record_failure(status: StatusFile, task: str, parameters: WorkflowParameters | None, error: BaseException) -> None:
    family = family_name(error)
    message = str(error) if isinstance(error, Vl3Error) else f"{type(error).__name__}: {error}"
    if isinstance(error, _EndOnRequest):
        family, message = error.family.__name__, str(error)
        log.warning("%s %s", task, message)
    else:
        log.error("%s failed (%s): %s", task, family, message, exc_info=error)
    try:
        status.finish("failed", error={"family": family, "message": message})
        if parameters is not None and not status.is_kept and not isinstance(error, SystemExit):
            note_failure(parameters.artifacts_uri, parameters.run_id, task=task, family=family, message=message)
    except Vl3Error as storage_error:  # the store fails too; the error itself is logged above
        log.error("the status of %s could not be written either: %s", task, storage_error)


def _leave_quickly(status: StatusFile) -> None:
    """Exit at once after a successful step: the interpreter would free half a million objects for up to 3 seconds.

    Registered before anything else, so it runs after every other exit handler.
    """
    if status.is_finished_well and not hasattr(sys, "last_value"):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


class _EndOnRequest(SystemExit):
    """A signal that asks this process to end; the exit code is 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.family = InterruptError if number == signal.SIGINT else TerminatedError
        self._name = signal.Signals(number).name

    def __str__(self) -> str:
        return f"ended on request ({self._name}). What was finished is kept: start the run again to continue."


def _on_request(signal_number: int, _: FrameType | None) -> None:
    """Exit through the `finally` blocks, so that a stage's processes are stopped."""
    raise _EndOnRequest(signal_number)


def _log_path(task: str) -> Path | None:
    folder = _path_variable("VL3_TASK_LOG_DIR")
    return folder / f"{task}.log" if folder else None


def _path_variable(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None
