"""Runs a build as RayJobs."""

from collections.abc import Callable
from typing import Any

from vl3.errors import ConfigError
from vl3.launch.job import LaunchJob, LaunchResult
from vl3.launch.jobs.run import launch_job
from vl3.launch.kube.client import ApiError, Client
from vl3.launch.kube.connection import connect
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import Object
from vl3.launch.kube.outages import outage_as_error, until_answered
from vl3.launch.kube.resources import POD_TEMPLATES
from vl3.launch.rayjob.kind import rayjob
from vl3.launch.rayjob.spec import TEMPLATE_PREFIXES


def launch_rayjob(
    job: LaunchJob,
    on_event: Callable[[dict[str, Any]], None],
    *,
    limits: LaunchLimits | None = None,
    client: Client | None = None,
) -> LaunchResult:
    """Run `python -m <job.module>` as the driver of a Ray cluster, until it succeeds; see launch_job.

    Raises:
        ConfigError: the placement's pool has no pod template.
    """
    api, patience = client or Client(connect()), limits or LaunchLimits()
    return launch_job(job, rayjob(_template(api, job, patience)), on_event, limits=patience, client=api)


def _template(client: Client, job: LaunchJob, limits: LaunchLimits) -> Object:
    assert job.placement is not None
    name = TEMPLATE_PREFIXES[job.stage] + job.placement.pool
    try:
        return outage_as_error(lambda: until_answered(lambda: client.get(POD_TEMPLATES, name), client, limits))
    except ApiError as error:
        raise ConfigError(
            f"namespace {client.namespace} has no PodTemplate {name} ({error.message}), after which the pods of "
            f"{job.name} would be made. Set placements.{job.stage}.pool to a pool that has one (`kubectl get "
            "podtemplates`), or ask the administrator to apply manifests/base/ray."
        ) from error
