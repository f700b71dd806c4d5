"""Step: clean-up at the end of the workflow. Frees what the run holds on the cluster and ends its MLflow run.

It is the exit handler, so it runs after the last step, after a failed one, and on a server also after a cancel.
"""

import logging
from typing import Any

from vl3.errors import Vl3Error
from vl3.steps.request import Request, Work
from vl3.workflow.failures import TaskFailure, local_failure, noted_failures
from vl3.workflow.step import Step, StepOutcome
from vl3.workflow.tracking import finish_parent_run

log = logging.getLogger("vl3.step")

_GOOD = ("SUCCEEDED", "COMPLETE", "COMPLETED", "CACHED")
"""States that mean success: kfp.local's and the server's, which changed between its releases."""
_BAD = ("FAILED", "FAILURE", "ERROR")
"""States that mean failure."""


def run(work: Work) -> StepOutcome:
    """Free the cluster first, because idle GPUs cost money; a tracking server that is down only costs a record."""
    request = work.request
    state = final_state(str(request.values["state"]))
    failure = find_failure(request) if state != "FINISHED" else None
    freed, problem = _free(request)
    _report(request, state, failure)
    if problem is not None:
        raise problem
    values = {"state": state, "failed_task": failure.task if failure else None, "freed": freed}
    return StepOutcome(outputs={}, values=values)


def final_state(word: str) -> str:
    """MLflow's FINISHED, FAILED or KILLED for the workflow engine's state.

    After a cancel the server still says RUNNING: the state is what the steps have reported, and a killed one reports
    nothing. That is also so if a step's whole container was killed, say for its memory. KILLED is true of both, so an
    earlier try's failure note does not make FAILED of it; it is only told beside it.
    """
    if word.upper() in _GOOD:
        return "FINISHED"
    return "FAILED" if word.upper() in _BAD else "KILLED"


def find_failure(request: Request) -> TaskFailure | None:
    """The failed task from its own note; otherwise what the workflow engine reports, if anything."""
    if request.run_folder is not None:
        return local_failure(request.run_folder)
    try:
        notes = noted_failures(request.artifacts_uri, request.run_id)
    except Vl3Error as error:  # the store itself may have failed; the clean-up must continue
        log.warning("the failed task is not known, since its note cannot be read: %s", error)
        notes = []
    if notes:
        return notes[0]
    message = str(request.values.get("message") or "")
    return TaskFailure(task=str(request.values["task"]), family="Vl3Error", message=message, at="") if message else None


def _free(request: Request) -> tuple[list[str], Vl3Error | None]:
    """Delete the run's TrainJobs; returns their names, and the error if that failed."""
    if request.config.launch.backend != "trainjob":
        return [], None
    from vl3.launch.collect import cancel_run

    try:
        freed = cancel_run(request.run_id)
    except Vl3Error as error:
        log.error("TrainJobs of run %s may be left: %s", request.run_id, error)
        return [], error
    if freed:
        log.info("deleted %d TrainJobs and waited until their GPUs were free: %s", len(freed), ", ".join(freed))
    else:
        log.info("run %s has no TrainJobs left", request.run_id)
    return freed, None


def _images(request: Request) -> dict[str, str]:
    """A tag with the image of each step by digest: a pod cannot see its own, but the API server tells a launcher."""
    if request.config.launch.backend != "trainjob":
        return {}
    from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
    from vl3.launch.kube.connection import connect
    from vl3.launch.kube.owner import find_launcher_pod, images_of_run

    try:
        client = Client(connect())
        pod = find_launcher_pod(client)
        images = images_of_run(client, pod) if pod else {}
    except (Vl3Error, ApiError, ApiUnreachableError) as error:  # it is only a record
        log.warning("the images of the steps are not known: %s", error)
        return {}
    return {"vl3.images": ", ".join(f"{task} {image}" for task, image in sorted(images.items()))} if images else {}


def _report(request: Request, state: str, failure: TaskFailure | None) -> None:
    # Empty tags overwrite those of an earlier attempt at the run.
    tags = {"vl3.state": state, "vl3.failed_task": "", "vl3.error": "", **_images(request)}
    if failure is not None:
        tags |= {"vl3.failed_task": failure.task, "vl3.error": f"{failure.family}: {failure.message}"}
        log.info("run %s: %s in %s (%s: %s)", request.run_id, state, failure.task, failure.family, failure.message)
    else:
        log.info("run %s: %s", request.run_id, state)
    finish_parent_run(request, state, tags)


def key_parts(request: Request) -> dict[str, Any]:
    """The run's id: every run has its own clean-up."""
    return {"run_id": request.run_id}


STEP = Step(run=run, key_parts=key_parts, reusable=False)
