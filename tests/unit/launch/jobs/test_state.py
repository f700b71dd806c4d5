"""The state of a launch, read from objects that a real cluster wrote."""

from collections.abc import Callable
from typing import Any

import pytest

from vl3.launch.jobs.state import observe

Recorded = Callable[[str], dict[str, Any]]
PREEMPTOR = "Preempted to accommodate a workload (UID: be48d8ae-b058-4c7e-908a-facd49278420, JobUID: b12d4e9f-2336-4db4-8745-7f26f440fa62) due to prioritization in the ClusterQueue"  # fmt: skip # noqa: E501


@pytest.mark.parametrize(
    ("moment", "state", "text"),
    [
        ("queued", "queued", "in queue d-real"),
        (
            "quota_never",
            "queued",
            "in queue d: Pending: couldn't assign flavors to pod set node: insufficient quota for nvidia.com/gpu in "
            "flavor d, previously considered podsets requests (0) + current podset request (32) > maximum capacity "
            "(16)",
        ),
        (
            "queued_behind_preemption",
            "queued",
            "in queue d: Pending: couldn't assign flavors to pod set node: insufficient unused quota for "
            "nvidia.com/gpu in flavor d, 16 more needed. Pending the preemption of 1 workload(s)",
        ),
        ("admitted", "admitted", "admitted to d-real; 1 of 1 pods created"),
        ("pulling", "pulling", "1 of 1 pods wait for image and volumes (ghcr.io/vl3/launcher:0.1.0)"),
        ("starting", "starting", "1 of 2 pods ready"),
        ("running", "running", "2 of 2 pods run"),
        ("eviction_begins", "preempted", f"Preempted: {PREEMPTOR}"),
        ("preempted", "preempted", f"Preempted: {PREEMPTOR}"),
        ("resumed", "resumed", f"2 of 2 pods run; Previously: {PREEMPTOR}"),
        ("complete", "complete", "AllJobsCompleted: jobset completed successfully"),
        (
            "image_back_off",
            "pulling",
            "image ghcr.io/vl3/trainer:0.1.0: ImagePullBackOff: simulated for image ghcr.io/vl3/trainer:0.1.0",
        ),
    ],
    ids=lambda value: value if value and " " not in value else "",
)
def test_state_of_a_recorded_moment(recorded: Recorded, moment: str, state: str, text: str) -> None:
    scene = recorded(moment)
    seen = observe(scene["trainjob"], scene["workload"], scene["pods"], nodes=scene["nodes"])
    assert (seen.state, seen.text) == (state, text)


def test_a_pod_without_a_node_is_told_with_the_reason(recorded: Recorded) -> None:
    scene = recorded("unschedulable")
    seen = observe(scene["trainjob"], scene["workload"], scene["pods"], nodes=1)
    assert seen.state == "admitted"
    assert seen.text.startswith("1 of 1 pods find no node: 0/4 nodes are available:")
    assert "2 Insufficient memory" in seen.text


def test_a_failed_job_is_failed_whatever_its_pods_do(recorded: Recorded) -> None:
    scene = recorded("end_data")
    seen = observe(scene["trainjob"], None, scene["pods"], nodes=1)
    assert seen.state == "failed"
    assert seen.text.startswith("ReachedMaxRestarts: jobset failed due to reaching max number of restarts")


def test_the_column_that_lies_is_not_believed(recorded: Recorded) -> None:
    """Trainer prints STATE Suspended for a resumed job: its last condition is Suspended, with status False."""
    scene = recorded("running")
    assert [one["type"] for one in scene["trainjob"]["status"]["conditions"]] == ["Suspended"]
    assert observe(scene["trainjob"], scene["workload"], scene["pods"], nodes=2).state == "running"


def test_a_job_that_is_gone_or_going_is_deleted(recorded: Recorded) -> None:
    assert observe(None, None, [], nodes=1).state == "deleted"
    scene = recorded("running")
    scene["trainjob"]["metadata"]["deletionTimestamp"] = "2026-11-23T14:00:00Z"
    assert observe(scene["trainjob"], scene["workload"], scene["pods"], nodes=2).state == "deleted"


def test_a_job_that_kueue_has_not_seen_says_so(recorded: Recorded) -> None:
    seen = observe(recorded("queued")["trainjob"], None, [], nodes=1)
    assert (seen.state, seen.text) == ("queued", "suspended; Kueue has not created its Workload yet")
    assert seen.since is not None
