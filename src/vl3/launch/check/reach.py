"""The first request to an API server: it answers within seconds, or a message says why not."""

import json
from typing import TYPE_CHECKING

from vl3.errors import ClusterError
from vl3.launch.kube.connection import Connection

if TYPE_CHECKING:
    import urllib3

PROBE_SECONDS = 10.0
"""Timeout of the first answer."""


def server_version(connection: Connection) -> str:
    """Version of the API server.

    Raises:
        ClusterError: it cannot be reached: nothing listens, the name is unknown, TLS fails, it does not answer.
    """
    import urllib3

    try:
        response = connection.pool.request(
            "GET",
            f"{connection.server}/version",
            headers={"Accept": "application/json", **connection.authorization()},
            timeout=urllib3.Timeout(total=PROBE_SECONDS),
            retries=False,
        )
        return str(json.loads(response.data)["gitVersion"])
    except (ValueError, KeyError, TypeError):
        # The requests that follow report 401 and 403; here it only has to be an API server.
        if response.status in (401, 403):
            return "unknown version"
        raise ClusterError(
            f"{connection.server} answers, but not like an API server ({response.status}: "
            f"{response.data[:80].decode(errors='replace').strip()!r}). Correct the address in {connection.source}, or "
            "start the API server behind that proxy."
        ) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ClusterError(_unreachable(connection, error)) from error


def _unreachable(connection: Connection, error: "urllib3.exceptions.HTTPError | OSError") -> str:
    import urllib3

    exceptions = urllib3.exceptions
    server, source = connection.server, connection.source
    if isinstance(error, exceptions.SSLError):
        return (
            f"the API server {server} shows a certificate that is not trusted ({_reason(error)}). The certificate "
            f"authority in {source} belongs to another cluster, or to an older one of the same name. Fetch the "
            "cluster's kubeconfig again."
        )
    if isinstance(error, exceptions.NameResolutionError):
        return (
            f"the API server {server} has a name that cannot be resolved. Correct the address in {source}, or join the "
            "network (VPN) whose DNS knows it."
        )
    if isinstance(error, exceptions.TimeoutError) and not isinstance(error, exceptions.NewConnectionError):
        return (
            f"the API server {server} gave no answer within {PROBE_SECONDS:g} s. Check the network between here and it "
            f"(VPN, firewall, proxy) and the address in {source}."
        )
    return (
        f"the API server {server} cannot be reached ({_reason(error)}). Start the cluster (`make kind-up` for the one "
        f"of this repository), or correct the address in {source}."
    )


def _reason(error: BaseException) -> str:
    """The innermost reason: `Connection refused` instead of urllib3's whole chain."""
    cause: BaseException = error
    while isinstance(inner := cause.__cause__ or (cause.args[-1] if cause.args else None), BaseException):
        cause = inner
    text = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or str(cause)
    return str(text).partition("\n")[0][:200]
