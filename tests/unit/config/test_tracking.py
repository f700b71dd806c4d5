"""The address of the MLflow store is checked before anything starts."""

from pathlib import Path

import pytest

from vl3.config.tracking import check_tracking_uri, is_server, shared_store
from vl3.errors import ConfigError
from vl3.system.uris import sqlite_path, sqlite_uri


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("file:///tmp/mlruns", "has the scheme 'file', which MLflow does not support"),
        ("mlruns", "has the scheme ''"),
        ("sqlite://", "names no file"),
        ("http://", "names no host"),
        ("http:///path", "names no host"),
        ("http://host:port", "is not an address"),
        ("http://[::1", "is not an address"),
    ],
)
def test_what_mlflow_cannot_open_is_refused(uri: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_tracking_uri(uri)


@pytest.mark.parametrize("uri", ["sqlite:////a/mlflow.db", "postgresql+psycopg2://db/x", "https://host:5000/mlflow"])
def test_what_mlflow_can_open_passes(uri: str) -> None:
    check_tracking_uri(uri)
    assert is_server(uri) == uri.startswith("https")


@pytest.mark.parametrize("name", ["a", "a#1", "d e", "ü"])
def test_the_uri_of_a_file_names_that_file(name: str) -> None:
    from sqlalchemy.engine import make_url

    path = Path("/data") / name / "mlflow.db"
    assert sqlite_path(sqlite_uri(path)) == path
    assert make_url(sqlite_uri(path)).database == str(path)


def test_runs_beside_each_other_share_a_store() -> None:
    assert shared_store(Path("/w/runs/a")) == shared_store(Path("/w/runs/b")) == Path("/w/runs/mlflow.db")
