"""Requests that outlast a restart of the API server, and the one message for what no waiting can mend."""

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from vl3.errors import ClusterError, ConfigError, Vl3Error
from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.system.retry import retry

log = logging.getLogger("vl3.launch")

Result = TypeVar("Result")

_NO_RIGHT = re.compile(r" cannot \w+ resource | cannot \w+ path ")
"""How the API server says that RBAC forbids something; webhooks and quotas answer 403 in other words."""


class LostTouchError(Exception):
    """The API server cannot be asked any more, not even to delete what is there.

    Attributes:
        error: what to tell the person.
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
        """No good answer came.

        Raises:
            LostTouchError: that has been so for too long.
        """
        if self._since is None:
            self._since = time.monotonic()
            log.warning("waiting for the API server: %s", error)
        seconds = time.monotonic() - self._since
        if seconds > self._limits.api_outage_seconds:
            raise LostTouchError(
                ClusterError(
                    f"the API server {self._client.server} ({self._client.source}) has given no good answer for "
                    f"{seconds:.0f} s: {error}. A job that was created goes on by itself. When the server answers "
                    "again, start the run again: it finds its job."
                )
            ) from error


def until_answered(
    call: Callable[[], Result], client: Client, limits: LaunchLimits, stop: threading.Event | None = None
) -> Result:
    """Make a request until it is answered.

    Raises:
        ApiError: an answer that the caller has to understand: 400, 404, 409, 410, 422.
        ConfigError: our rights do not suffice.
        ClusterError: the API server does not know the resource.
        LostTouchError: it gave no good answer for too long, or does not know who we are any more.
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
    """Whether the same request may succeed in a while, because the server is busy or has only just started."""
    is_refusal = error.status != 401 and refusal(error, client) is not None
    return error.is_passing or (is_refusal and client.is_settling(limits.settling_seconds))


def outage_as_error(call: Callable[[], Result]) -> Result:
    """Call what asks with until_answered, for a caller that has no job to be careful of.

    Raises:
        Vl3Error: in place of LostTouchError, the error for the person.
    """
    try:
        return call()
    except LostTouchError as error:
        raise error.error from error


def raise_refusal(error: ApiError, client: Client) -> None:
    """Raise the message for an answer that is about us rather than about the request's object, if it is one."""
    refused = refusal(error, client)
    if refused is not None and error.status == 401:
        raise LostTouchError(refused) from error
    if refused is not None:
        raise refused from error


def refusal(error: ApiError, client: Client) -> Vl3Error | None:
    """The message for an answer that is about us rather than about the request's object."""
    if error.status == 401:
        return ConfigError(
            f"the API server {client.server} does not know our credentials ({client.source}): {error.message}. "
            "They were read anew and are still refused: the token has expired or was revoked. Log in again (or "
            "renew the kubeconfig's token), then start the run again: it finds its job."
        )
    if error.status == 403 and _NO_RIGHT.search(error.message):
        return ConfigError(
            f"not allowed to {error.action}: {error.message}. Let the cluster's administrator apply "
            "manifests/base/rbac (Role vl3-launcher) to the namespace and bind it to who starts this."
        )
    if error.status == 404 and not error.names_object:
        return ClusterError(
            f"the API server {client.server} knows nothing of what is needed to {error.action}: its "
            "CustomResourceDefinition is missing or has another version. Let the administrator install the versions "
            "of manifests/third-party; `vl3 cluster check` lists all that is missing."
        )
    return None
