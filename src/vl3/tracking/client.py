"""Opens an MLflow client: reachable within seconds, or an error that says what to do."""

import http.client
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from vl3.config.tracking import DATABASE_PORTS, check_tracking_uri, is_server
from vl3.errors import ClusterError, ConfigError
from vl3.system.retry import Pauses, retry
from vl3.system.secrets import masked, without_account
from vl3.system.uris import sqlite_path
from vl3.tracking.database import ensure_database

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PROBE_TIMEOUT_SECONDS = 5.0
"""Timeout of the first request to a tracking server."""

_TRIES, _TRIES_TO_CONNECT = 8, 3
_PATIENCE_SECONDS = 60.0
_PAUSES = Pauses(first_seconds=0.5, longest_seconds=4.0)
UNREADABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What MLflow's client raises on an answer that is JSON and not MLflow's: `{"status": "ok"}` has no run."""

T = TypeVar("T")


class UnreachableError(ClusterError):
    """Nobody answers at the address of the tracking store."""


def open_client(tracking_uri: str, *, template: Path | None = None) -> "MlflowClient":
    """An MLflow client for tracking and registry that has reached its store once.

    Args:
        tracking_uri: `sqlite:////absolute/mlflow.db`, another database URI, or the URL of a tracking server.
        template: migrated empty database to start a fresh SQLite file from (see make_template).

    Raises:
        ConfigError: the URI has a scheme that MLflow does not support here.
        StorageError: the SQLite file cannot be written.
        ClusterError: the server or database does not answer or refuses.
    """
    _check_uri(tracking_uri)
    if tracking_uri.startswith("sqlite:"):
        ensure_database(sqlite_path(tracking_uri), template)
    else:
        _probe(tracking_uri)
    from mlflow.tracking import MlflowClient

    with platform_errors(tracking_uri, "open the tracking store"):
        client = MlflowClient(tracking_uri, tracking_uri)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def platform_errors(tracking_uri: str, action: str) -> Iterator[None]:
    """Turn errors of MLflow and its database into ClusterError.

    Raises:
        ClusterError: what was attempted, at which URI, the reason, and what to do.
    """
    try:
        yield
    except _platform_error_types(tracking_uri) as error:
        reason = _reason(error)
        raise ClusterError(
            f"MLflow at {shown(tracking_uri)} could not {action}: {reason} "
            f"{_remedy(tracking_uri, reason)} Then start the same run again: it reuses what is finished."
        ) from error


def patiently(call: Callable[[], T]) -> T:
    """Call again when the tracking store fails: up to eight times within a minute, three times if nobody answers.

    Args:
        call: the idempotent call.

    Raises:
        ClusterError: it failed each time.
    """
    unreachable = 0

    def may_pass(error: BaseException) -> bool:
        nonlocal unreachable
        unreachable += isinstance(error, UnreachableError)
        return isinstance(error, ClusterError) and unreachable < _TRIES_TO_CONNECT

    return retry(call, may_pass=may_pass, pauses=_PAUSES, tries=_TRIES, deadline_seconds=_PATIENCE_SECONDS)


def require_answer(value: object, what: str) -> None:
    """Refuse an empty value of MLflow's answer.

    Raises:
        ValueError: it is empty; platform_errors makes it a ClusterError.
    """
    if not value:
        raise ValueError(f"the answer has no {what}")


def _platform_error_types(tracking_uri: str) -> tuple[type[Exception], ...]:
    """The errors of MLflow; those of SQLAlchemy only for a database, because mlflow-skinny does not install it."""
    from mlflow.exceptions import MlflowException

    if is_server(tracking_uri):
        return (MlflowException, import_module("google.protobuf.json_format").ParseError, *UNREADABLE)
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError)


def shown(tracking_uri: str) -> str:
    """The URI without account and secrets."""
    return masked(tracking_uri)


def _reason(error: Exception) -> str:
    """The first line of an error, without secrets, and what a page in place of an answer means."""
    text = masked(str(error)).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, UNREADABLE) or "valid JSON" in line:
        line = f"something that is not MLflow's answered, perhaps a proxy or a page to log in ({line:.200})."
    return f"{line:.500}"


def _remedy(tracking_uri: str, reason: str) -> str:
    if "database schema" in reason:
        return f"Back the database up and run `mlflow db upgrade {shown(tracking_uri)}`."
    if "Invalid Host header" in reason:
        return "Start the server with --allowed-hosts naming this host and port."
    if is_server(tracking_uri):
        return "Check that the server runs and that its address and credentials are right."
    return "Check that the database is reachable, intact and not locked by another program."


def _has_databases() -> bool:
    """Whether MLflow's database stores are installed: the images of the steps have only its client (mlflow-skinny)."""
    return find_spec("sqlalchemy") is not None


def _check_uri(tracking_uri: str) -> None:
    check_tracking_uri(tracking_uri)
    if not is_server(tracking_uri) and not _has_databases():
        raise ConfigError(
            f"tracking URI {shown(tracking_uri)!r} names a database, but only MLflow's client for servers is installed "
            "here (mlflow-skinny). Use the http(s)://host:port of an MLflow server."
        )


def _probe(tracking_uri: str) -> None:
    """Connect to the server once with a short timeout: MLflow's own retries would take minutes."""
    try:
        if is_server(tracking_uri):
            _probe_http(tracking_uri)
        else:
            _probe_port(tracking_uri)
    except (OSError, http.client.HTTPException) as error:
        reason = masked(str(getattr(error, "reason", None) or error))
        raise UnreachableError(
            f"MLflow at {shown(tracking_uri)} does not answer within {PROBE_TIMEOUT_SECONDS:.0f} s: {reason}. Nothing "
            "would be tracked. Start the server, correct --tracking, or leave it out to use a file here; then start "
            "the same run again: it reuses what is finished."
        ) from error


def _probe_http(tracking_uri: str) -> None:
    """Any HTTP answer counts as reached; the first real call shows whether our credentials are accepted."""
    try:
        with urllib.request.urlopen(  # noqa: S310  # the scheme was checked
            without_account(tracking_uri).rstrip("/") + "/health", timeout=PROBE_TIMEOUT_SECONDS
        ):
            pass
    except urllib.error.HTTPError as error:
        if error.code in (502, 503, 504):
            raise
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # MLflow has its own settings for certificates
            raise


def _probe_port(tracking_uri: str) -> None:
    parts = urlsplit(tracking_uri)
    port = parts.port or DATABASE_PORTS[parts.scheme.partition("+")[0]]
    if parts.hostname:  # without a host it is a Unix socket
        socket.create_connection((parts.hostname, port), timeout=PROBE_TIMEOUT_SECONDS).close()
