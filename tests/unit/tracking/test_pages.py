"""MLflow's pages of a database, on this machine only."""

import socket
import urllib.request
from pathlib import Path

import pytest

from vl3.errors import ConfigError, StorageError
from vl3.system.uris import sqlite_uri
from vl3.tracking.database import ensure_database
from vl3.tracking.pages import served


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_pages_answer_at_the_address_and_end(tmp_path: Path, template: Path) -> None:
    database = tmp_path / "a#1" / "mlflow.db"
    ensure_database(database, template)
    with served(sqlite_uri(database)) as (address, server):
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address) as answer:
            assert b"<title>MLflow</title>" in answer.read()
    assert server.poll() is not None


def test_a_port_in_use_and_a_file_that_is_no_database_are_refused(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_text("no database")
    with pytest.raises(StorageError, match="not an SQLite database"), served(sqlite_uri(database)):
        pass
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} of this machine is in use"), served("sqlite:///x", port):
            pass
