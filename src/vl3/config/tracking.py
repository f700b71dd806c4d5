"""The address of the MLflow store: which kinds there are, and how a wrong one is refused before anything starts."""

from pathlib import Path
from urllib.parse import urlsplit

from vl3.errors import ConfigError
from vl3.system.secrets import masked
from vl3.system.uris import sqlite_path

DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Databases that MLflow supports beside SQLite, with their usual ports."""
SERVER_SCHEMES = ("http", "https")
"""Schemes of a tracking server."""


def shared_store(run_folder: Path) -> Path:
    """The database of a run on this machine: beside its folder, so that all runs below `runs/` share one."""
    return run_folder.absolute().parent / "mlflow.db"


def is_server(tracking_uri: str) -> bool:
    """Whether the URI names a tracking server and not a database."""
    return urlsplit(tracking_uri).scheme in SERVER_SCHEMES


def check_tracking_uri(tracking_uri: str) -> None:
    """Check what can be checked without a connection.

    Raises:
        ConfigError: MLflow does not support the scheme here, or the file, host or port is missing or not valid.
    """
    try:
        parts = urlsplit(tracking_uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(
            f"tracking URI {masked(tracking_uri)!r} is not an address ({masked(str(error))}). Write it as "
            "http(s)://host:port."
        ) from error
    scheme = parts.scheme.partition("+")[0]
    if scheme not in ("sqlite", *DATABASE_PORTS, *SERVER_SCHEMES):
        raise ConfigError(
            f"tracking URI {masked(tracking_uri)!r} has the scheme {scheme!r}, which MLflow does not support (since "
            "3.13 its file store is off). Use sqlite:////absolute/path/mlflow.db, postgresql://... or "
            "http(s)://host:port."
        )
    if scheme == "sqlite":
        sqlite_path(tracking_uri)
    if scheme in SERVER_SCHEMES and not host:
        raise ConfigError(f"tracking URI {masked(tracking_uri)!r} names no host. Write it as http(s)://host:port.")
