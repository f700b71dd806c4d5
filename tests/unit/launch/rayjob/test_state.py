"""A RayJob seen like a TrainJob, and the causes of its failures."""

import json
from pathlib import Path
from typing import Any

import pytest

from vl3.launch.jobs.state import observe
from vl3.launch.kube.objects import condition, is_true, unix_time
from vl3.launch.rayjob.state import FAILURE_PREFIX, as_conditions, why_failed
from vl3.pod import build

RECORDED = Path(__file__).parent / "recorded" / "failed.json"
"""A RayJob of KubeRay 1.5.0 whose entry point ended with exit code 3."""


def rayjob(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "j", "uid": "u"}, "spec": {"suspend": False}, "status": status}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "Complete"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "Failed"),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}, "Failed"),
        ({"jobDeploymentStatus": "ValidationFailed"}, "Failed"),
    ],
)
def test_ends_become_conditions(status: dict[str, str], kind: str) -> None:
    seen = as_conditions(rayjob(**status, endTime="2026-11-29T08:56:55Z"))
    (found,) = seen["status"]["conditions"]
    assert (found["type"], found["status"]) == (kind, "True")
    assert unix_time(found["lastTransitionTime"]) == 1795942615
    assert seen["kind"] == "RayJob"


def test_a_running_one_has_a_beginning_and_no_end() -> None:
    seen = as_conditions(rayjob(jobDeploymentStatus="Running", startTime="2026-11-29T08:54:50Z"))
    assert condition(seen, "Suspended") is not None
    assert not is_true(seen, "Suspended")
    assert not is_true(seen, "Complete")
    assert not is_true(seen, "Failed")


def test_without_a_status_it_waits() -> None:
    job = rayjob()
    job["spec"]["suspend"] = True
    assert observe(as_conditions(job), None, [], nodes=4).state == "queued"


def test_the_exit_code_says_the_family() -> None:
    recorded = json.loads(RECORDED.read_text())
    failure = why_failed(as_conditions(recorded), [])
    assert failure.cause.name == "data"
    assert failure.text == "RayJob hand3: its entry point ended with exit code 3 (1)"


@pytest.mark.parametrize(
    ("code", "cause"), [(1, "crash"), (2, "config"), (4, "cluster"), (6, "storage"), (77, "crash")]
)
def test_other_exit_codes(code: int, cause: str) -> None:
    message = f"Job entrypoint command failed with exit code {code}, last available logs:\nlast words\n"
    job = rayjob(jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed", message=message)
    failure = why_failed(as_conditions(job), [])
    assert failure.cause.name == cause
    assert "last words" in failure.text


def test_what_the_driver_said_goes_before_its_exit_code() -> None:
    said = FAILURE_PREFIX + json.dumps({"family": "StorageError", "message": "s3://b/x is gone"})
    message = f"Job entrypoint command failed with exit code 1, last available logs:\n{said}\nlater noise\n"
    job = rayjob(jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed", message=message)
    failure = why_failed(as_conditions(job), [])
    assert (failure.cause.name, failure.text) == ("storage", "RayJob j: s3://b/x is gone")


@pytest.mark.parametrize("line", ["not json", '{"family": "KeyError", "message": "x"}', "[1]", "{}"])
def test_a_line_that_is_none_is_passed_over(line: str) -> None:
    message = f"Job entrypoint command failed with exit code 6, last available logs:\n{FAILURE_PREFIX}{line}\n"
    job = rayjob(jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed", message=message)
    assert why_failed(as_conditions(job), []).cause.name == "storage"


@pytest.mark.parametrize(("reason", "cause"), [("DeadlineExceeded", "deadline"), ("ValidationFailed", "unsupported")])
def test_what_kuberay_decides(reason: str, cause: str) -> None:
    job = rayjob(jobDeploymentStatus="Failed", reason=reason, message="because")
    assert why_failed(as_conditions(job), []).cause.name == cause


def test_a_lost_head_is_looked_for_in_the_pods() -> None:
    job = rayjob(jobDeploymentStatus="Failed", reason="SubmissionFailed", message="Job submission has failed.")
    assert why_failed(as_conditions(job), []).cause.name == "vanished"
    end = {"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2026-11-29T08:56:55Z"}
    head = {
        "metadata": {"name": "j-head", "labels": {}},
        "spec": {"nodeName": "n"},
        "status": {"phase": "Failed", "containerStatuses": [{"name": "node", "state": {"terminated": end}}]},
    }
    failure = why_failed(as_conditions(job), [head])
    assert (failure.cause.name, failure.pod) == ("out_of_memory", "j-head")
    error = str(failure.error("build-data", "build", attempts=1))
    assert "raise memory_gib or lower processes_per_node of the job's placement" in error
    assert "stages." not in error


def test_driver_and_launcher_agree_on_the_line() -> None:
    assert build.FAILURE_PREFIX == FAILURE_PREFIX
