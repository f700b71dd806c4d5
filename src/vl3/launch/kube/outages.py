"""Retries requests while the API server restarts, and explains refusals that no retry can solve."""

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from vl3.errors import ClusterError, ConfigError, Vl3Error
from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import Object
from vl3.launch.kube.resources import Resource
from vl3.system.retry import retry

log = logging.getLogger("vl3.launch")

Result = TypeVar("Result")

_NO_RIGHT = re.compile(r" cannot \w+ resource | cannot \w+ path ")
"""How the API server reports that RBAC forbids something; webhooks and quotas word their 403 differently."""


class NoSuchApiError(ClusterError):
    """The API server does not serve a kind of object: its CustomResourceDefinition is missing."""


class LostTouchError(Exception):
    """The API server does not answer any more, so jobs cannot even be deleted.

    Attributes:
        error: the error to show.
    """

    def __init__(self, error: Vl3Error) -> None:
        super().__init__(str(error))
        self.error = error


class Outage:
    """How long the API server has not answered."""

    def __init__(self, limits: LaunchLimits, client: Client) -> None:
        self._limits = limits
        self._client = client
        self._since: float | None = None

    def over(self) -> None:
        """An answer came."""
        if self._since is not None and time.monotonic() - self._since > 5:
            log.info("the API server answers again after %.0f s", time.monotonic() - self._since)
        self._since = None

    def note(self, error: BaseException) -> None:
        """A request failed.

        Raises:
            LostTouchError: the outage has lasted too long.
        """
        if self._since is None:
            self._since = time.monotonic()
            log.warning("waiting for the API server: %s", error)
        seconds = time.monotonic() - self._since
        if seconds > self._limits.api_outage_seconds:
            raise LostTouchError(
                ClusterError(
                    f"the API server {self._client.server} ({self._client.source}) has given no valid answer for "
                    f"{seconds:.0f} s: {error}. A job that was created keeps running. When the server answers "
                    "again, start the run again: it finds its job."
                )
            ) from error


def until_answered(
    call: Callable[[], Result], client: Client, limits: LaunchLimits, stop: threading.Event | None = None
) -> Result:
    """Retry a request until it is answered.

    Raises:
        ApiError: an answer that the caller has to handle: 400, 404, 409, 410, 422.
        ConfigError: we lack a right.
        NoSuchApiError: the API server does not know the resource.
        LostTouchError: it gave no valid answer for too long, or rejects our credentials.
        StoppedError: `stop` was set.
    """
    outage = Outage(limits, client)

    def is_passing(error: BaseException) -> bool:
        return isinstance(error, ApiUnreachableError) or (
            isinstance(error, ApiError) and may_pass(error, client, limits)
        )

    try:
        result = retry(
            call,
            may_pass=is_passing,
            pauses=limits.pauses,
            asked_for=lambda error: error.retry_after_seconds if isinstance(error, ApiError) else 0.0,
            stop=stop,
            note=lambda error, *_: outage.note(error),
        )
    except ApiError as error:
        raise_refusal(error, client)
        raise
    outage.over()
    return result


def may_pass(error: ApiError, client: Client, limits: LaunchLimits) -> bool:
    """Whether an error is transient, because the server is busy or has only just started."""
    is_refusal = error.status != 401 and refusal(error, client) is not None
    return error.is_passing or (is_refusal and client.is_settling(limits.settling_seconds))


def list_now(client: Client, resource: Resource, limits: LaunchLimits, **query: str) -> list[Object]:
    """All objects that a query selects, for a person who waits.

    Raises:
        ConfigError: we have no right to list them.
        ClusterError: the API server does not answer for limits.api_outage_seconds, or does not know the resource.
    """
    answer = outage_as_error(lambda: until_answered(lambda: client.list(resource, **query), client, limits))
    return list(answer.get("items") or ())


def outage_as_error(call: Callable[[], Result]) -> Result:
    """Call a function that uses until_answered, for a caller without a job that keeps running.

    Raises:
        Vl3Error: the error inside a LostTouchError.
    """
    try:
        return call()
    except LostTouchError as error:
        raise error.error from error


def raise_refusal(error: ApiError, client: Client) -> None:
    """Raise the error of `refusal`, if it has one."""
    refused = refusal(error, client)
    if refused is not None and error.status == 401:
        raise LostTouchError(refused) from error
    if refused is not None:
        raise refused from error


def refusal(error: ApiError, client: Client) -> Vl3Error | None:
    """The error for an answer about our rights or the server's APIs; None if it is about the request's object."""
    if error.status == 401:
        return ConfigError(
            f"the API server {client.server} rejects our credentials ({client.source}): {error.message}. "
            "They were read again and are still refused: the token has expired or was revoked. Log in again (or "
            "renew the kubeconfig's token), then start the run again: it finds its job."
        )
    if error.status == 403 and _NO_RIGHT.search(error.message):
        return ConfigError(
            f"not allowed to {error.action}: {error.message}. Ask the cluster's administrator to apply "
            "manifests/base/rbac (Role vl3-launcher) to the namespace and to bind it to this identity."
        )
    if error.status == 404 and not error.names_object:
        return NoSuchApiError(
            f"the API server {client.server} has no API to {error.action}: the CustomResourceDefinition is missing or "
            "has another version. Ask the administrator to install the versions of manifests/third-party; "
            "`vl3 cluster check` lists everything that is missing."
        )
    return None
