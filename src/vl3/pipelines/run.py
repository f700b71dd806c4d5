"""Run a workflow on this machine: `python -m vl3.pipelines.run --recipe tiny --data DIR --run runs/tiny`.

A thin runner around kfp.local that adds what it lacks: a lock, a log file per task, limits, a record of the run,
progress, clean stopping, and exit codes by error family.
"""

import argparse
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

from vl3.config.parameters import WorkflowParameters
from vl3.config.tracking import check_tracking_uri, shared_store, sqlite_uri
from vl3.errors import ConfigError, StorageError, Vl3Error
from vl3.pipelines.local.display import tell
from vl3.pipelines.local.lock import run_lock
from vl3.pipelines.local.watch import RunWatch
from vl3.pipelines.options import add_arguments, read_arguments
from vl3.pipelines.workflows import DEFAULT_WORKFLOW, WORKFLOWS, TaskLimit, Workflow, effective_config, get_workflow

SAMPLE = "build/data/tiny"
"""Default data: the sample that `make run-pipeline` generates."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143}


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, run the workflow, return the exit code."""
    arguments = _parse(argv)
    try:
        folder = Path(arguments.run).absolute()
        workflow = get_workflow(arguments.workflow)
        parameters = local_parameters(read_arguments(arguments), workflow, folder)
        limits = workflow.task_limits(effective_config(workflow, parameters), parameters)
        return run(folder, workflow.name, parameters, limits)
    except Vl3Error as error:
        tell(error)
        return error.exit_code


def run(folder: Path, workflow: str, parameters: WorkflowParameters, limits: dict[str, TaskLimit]) -> int:
    """Run the workflow in its folder, as the only run there.

    Raises:
        ConfigError: another run uses the folder.
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder}: the run folder cannot be created ({error.strerror}). Use another RUN."
        ) from error
    with run_lock(folder) as temporary:
        watch = RunWatch(folder, workflow, parameters, limits, temporary)
        for number in INTERRUPTED:
            signal.signal(number, lambda received, _: watch.interrupt(received))
        return watch.run()


def local_parameters(given: WorkflowParameters, workflow: Workflow, folder: Path) -> WorkflowParameters:
    """The parameters of a run on this machine: data from a local folder, artifacts in the run's folder by default.

    Runs beside each other share one tracking store and registry, `runs/mlflow.db`, so that a candidate is compared
    with the champion of an earlier run.

    Raises:
        ConfigError: MLflow does not support the tracking URI, or the model's folder does not exist.
    """
    tracking_uri = given.tracking_uri or sqlite_uri(shared_store(folder))
    check_tracking_uri(tracking_uri)
    return replace(
        given,
        recipe=given.recipe or workflow.default_recipe,
        stages=given.stages or workflow.default_stages,
        data_uri=Path(given.data_uri or SAMPLE).absolute().as_uri(),
        model_uri=_model_uri(given.model_uri),
        artifacts_uri=given.artifacts_uri or (folder / "artifacts").as_uri(),
        tracking_uri=tracking_uri,
    )


def _model_uri(given: str) -> str:
    """A model as a URI: a path becomes a file:// URI."""
    if not given or _SCHEME.match(given):
        return given
    folder = Path(given).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(
            f"model {given!r}: there is no folder {folder}. Correct the path; a model of the Hugging Face hub is "
            "written as hf://owner/name, one of the registry as models:/name@alias."
        )
    return folder.as_uri()


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m vl3.pipelines.run", description=__doc__.splitlines()[0])
    parser.add_argument("--workflow", default=DEFAULT_WORKFLOW, help=f"one of {', '.join(WORKFLOWS)}")
    parser.add_argument("--run", default="runs/tiny", help="folder of the run; start again in it to resume")
    add_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
