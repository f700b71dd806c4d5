"""Opens an MLflow client: reachable within seconds, or an error that says what to do."""

import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vl3.errors import ClusterError, ConfigError
from vl3.system.uris import sqlite_path
from vl3.tracking.database import ensure_database

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PROBE_TIMEOUT_SECONDS = 5.0
"""Timeout of the first request to a tracking server."""

_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_SERVER_SCHEMES = ("http", "https")


def is_server(tracking_uri: str) -> bool:
    """Whether the URI names a tracking server and not a database."""
    return urlsplit(tracking_uri).scheme in _SERVER_SCHEMES


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
    check_scheme(tracking_uri)
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
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(
            f"MLflow at {shown(tracking_uri)} could not {action}: {reason} "
            f"{_remedy(tracking_uri, reason)} Then start the same run again: it reuses what is finished."
        ) from error


def _platform_error_types(tracking_uri: str) -> tuple[type[Exception], ...]:
    """The errors of MLflow; those of SQLAlchemy only for a database, because mlflow-skinny does not install it."""
    from mlflow.exceptions import MlflowException

    if is_server(tracking_uri):
        return (MlflowException,)
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError)


def shown(tracking_uri: str) -> str:
    """The URI without a password."""
    parts = urlsplit(tracking_uri)
    return tracking_uri.replace(f":{parts.password}@", ":***@") if parts.password else tracking_uri


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


def check_scheme(tracking_uri: str) -> None:
    """Refuse a tracking URI that no store of MLflow has; nothing is connected.

    Raises:
        ConfigError: its scheme is unknown, it names no file or host, or its store is not installed here.
    """
    scheme = urlsplit(tracking_uri).scheme.partition("+")[0]
    if scheme not in ("sqlite", *_DATABASE_PORTS, *_SERVER_SCHEMES):
        raise ConfigError(
            f"tracking URI {tracking_uri!r} has the scheme {scheme!r}, which MLflow does not support (since 3.13 its "
            "file store is off). Use sqlite:////absolute/path/mlflow.db, postgresql://... or http(s)://host:port."
        )
    if scheme == "sqlite":
        sqlite_path(tracking_uri)
    elif is_server(tracking_uri) and not urlsplit(tracking_uri).hostname:
        raise ConfigError(f"tracking URI {shown(tracking_uri)!r} names no host. Write it as http(s)://host:port.")
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
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise ClusterError(
            f"MLflow at {shown(tracking_uri)} does not answer within {PROBE_TIMEOUT_SECONDS:.0f} s: {reason}. Nothing "
            "would be tracked. Start the server, correct the tracking URI, or leave it out to use SQLite; then start "
            "the same run again: it reuses what is finished."
        ) from error


def _probe_http(tracking_uri: str) -> None:
    """Any HTTP answer counts as reached; the first real call shows whether our credentials are accepted."""
    try:
        with urllib.request.urlopen(  # noqa: S310  # the scheme was checked
            tracking_uri.rstrip("/") + "/health", timeout=PROBE_TIMEOUT_SECONDS
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
    port = parts.port or _DATABASE_PORTS[parts.scheme.partition("+")[0]]
    if parts.hostname:  # without a host it is a Unix socket
        socket.create_connection((parts.hostname, port), timeout=PROBE_TIMEOUT_SECONDS).close()
