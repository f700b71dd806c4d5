"""A RayJob seen like a TrainJob, and why it failed.

KubeRay writes no conditions: `jobDeploymentStatus` says how far the RayJob is, `jobStatus` how its entry point ended,
and `message` has the entry point's exit code and last lines.
"""

import json
import re
from dataclasses import replace
from typing import Any

from vl3.errors import FAMILIES
from vl3.launch.diagnosis import causes
from vl3.launch.diagnosis.causes import AttemptFailure
from vl3.launch.diagnosis.failure import classify
from vl3.launch.kube.objects import Object, condition, name_of, one_line

FAILURE_PREFIX = "vl3-failure "
"""Prefix of the line of the entry point's log that says why it failed, as {"family", "message"}."""
_OUT_OF_MEMORY = (
    "If it was a worker, raise memory_gib or lower processes_per_node of the job's placement; if not, start the run "
    "again: what is made stays."
)
_EXIT_CODE = re.compile(r"exit code (\d+)")


def as_conditions(job: Object) -> Object:
    """The RayJob with the conditions that a TrainJob has.

    jobDeploymentStatus Complete and jobStatus SUCCEEDED is Complete; Complete and STOPPED, Failed and ValidationFailed
    are Failed; Running is Suspended=False since its start.
    """
    status: Object = job.get("status") or {}
    deployed, ended = status.get("jobDeploymentStatus"), status.get("jobStatus")
    found: list[dict[str, Any]] = []
    if deployed == "Complete" and ended == "SUCCEEDED":
        found.append(_condition("Complete", "Succeeded", "", status.get("endTime")))
    elif deployed in ("Complete", "Failed", "ValidationFailed"):
        reason = str(status.get("reason") or ended or deployed)
        found.append(_condition("Failed", reason, str(status.get("message") or ""), status.get("endTime")))
    elif status.get("startTime"):
        found.append({"type": "Suspended", "status": "False", "lastTransitionTime": status["startTime"]})
    return {**job, "kind": "RayJob", "status": {**status, "conditions": found}}


def _condition(kind: str, reason: str, message: str, since: str | None) -> dict[str, Any]:
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since}


def why_failed(job: Object, pods: list[Object]) -> AttemptFailure:
    """Why a RayJob has failed: what its entry point said, its exit code, or what its pods show.

    The pods of the cluster are deleted as soon as the job has failed, so what they show is only asked where the entry
    point did not end by itself.
    """
    failed = condition(job, "Failed") or {}
    reason, message = str(failed.get("reason")), str(failed.get("message"))
    where = f"RayJob {name_of(job)}"
    if reason == "DeadlineExceeded":
        return AttemptFailure(causes.DEADLINE, f"{where} exceeded its activeDeadlineSeconds")
    if reason == "ValidationFailed":
        return AttemptFailure(causes.UNSUPPORTED, f"{where} is refused by KubeRay: {one_line(message)}")
    said = _said(message)
    if said is not None:
        family, text = said
        return AttemptFailure(causes.OF_FAMILY.get(family, causes.CLUSTER), f"{where}: {text}")
    code = _EXIT_CODE.search(message)
    if reason == "AppFailed" and code is not None:
        last = one_line(message.strip().rpartition("\n")[2])
        text = f"{where}: its entry point ended with exit code {code.group(1)} ({last})"
        return AttemptFailure(causes.OF_EXIT_CODE.get(int(code.group(1)), causes.CRASH), text)
    failure = classify(job, pods)
    return replace(failure, remedy=_OUT_OF_MEMORY) if failure.cause is causes.OUT_OF_MEMORY else failure


def _said(message: str) -> tuple[str, str] | None:
    """Family and message of the last line by which the entry point said why it fails."""
    lines = [line for line in message.splitlines() if line.startswith(FAILURE_PREFIX)]
    try:
        said = json.loads(lines[-1].removeprefix(FAILURE_PREFIX)) if lines else None
    except ValueError:
        return None
    if not isinstance(said, dict) or said.get("family") not in FAMILIES:
        return None
    return str(said["family"]), one_line(str(said.get("message")), 2000)
