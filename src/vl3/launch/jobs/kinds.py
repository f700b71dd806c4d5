"""What differs between the kinds of jobs that the launcher creates, follows, adopts, cancels and collects alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vl3.config.placement import PlacementConfig
from vl3.launch.diagnosis.causes import AttemptFailure
from vl3.launch.job import LaunchJob
from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import Object
from vl3.launch.kube.resources import Resource


class Build(Protocol):
    """Makes the manifest of one attempt."""

    def __call__(
        self, job: LaunchJob, *, attempt: int, history: str = "", owner: Object | None = None, launcher_pod: str = ""
    ) -> Object:
        """The manifest: a pure function of its arguments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobKind:
    """One kind of job."""

    name: str
    """As the API server names it, `TrainJob`."""
    resource: Resource
    """Where its objects are."""
    build: Build
    """Makes its manifest."""
    pod_label: str
    """Label of a job's pods that has the job's name."""
    view: Callable[[Object], Object]
    """The object with the conditions Complete, Failed and Suspended, whatever its controller writes."""
    num_pods: Callable[[Object], int]
    """How many pods a job has while it runs."""
    tells: Callable[[Object], bool]
    """Whether a pod's log has the job's events."""
    why_failed: Callable[[Object, list[Object]], AttemptFailure]
    """Why a failed job has failed, by its view and its pods as last seen."""
    affordable: Callable[[PlacementConfig, Sequence[int], Client, LaunchLimits], int | None] | None = None
    """The largest of some numbers of nodes that its queue has quota for now, None if it has for none; None for a kind
    of job that always has the nodes of its placement."""
    has_long_grace: bool
    """Whether its pods may take minutes to end, so that a cancel shortens that."""

    def pods_of(self, name: str) -> str:
        """Label selector of a job's pods."""
        return f"{self.pod_label}={name}"
