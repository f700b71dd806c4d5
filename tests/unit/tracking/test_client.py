"""A store that cannot be reached or used is reported within seconds, with the URI and what to do."""

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from vl3.errors import ClusterError, ConfigError
from vl3.tracking import client as module
from vl3.tracking.client import open_client, shown
from vl3.tracking.database import ensure_database
from vl3.tracking.runs import Tracker


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """Answers /health, and refuses everything else as MLflow's host check does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 403)
            self.end_headers()
            self.wfile.write(b"Invalid Host header - possible DNS rebinding attack detected")

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_open_client_names_unreachable_store_at_once(closed_port: int, scheme: str) -> None:
    uri = f"{scheme}://127.0.0.1:{closed_port}"
    started = time.monotonic()
    with pytest.raises(ClusterError, match=rf"{uri} does not answer within 5 s: .*refused.*Start the server"):
        open_client(uri)
    assert time.monotonic() - started < 3


def test_open_client_gives_up_on_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_TIMEOUT_SECONDS", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(ClusterError, match="timed out"):
            open_client(f"http://127.0.0.1:{listener.getsockname()[1]}")


def test_open_client_explains_refusal(refusing_server: str) -> None:
    with pytest.raises(ClusterError, match=r"could not open the tracking store: .*403.*--allowed-hosts"):
        open_client(refusing_server)


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "ftp://host"])
def test_open_client_refuses_other_schemes(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"which MLflow does not support.*Use sqlite:////absolute/path/mlflow\.db"):
        open_client(uri)


def test_open_client_names_the_upgrade_for_an_old_schema(tmp_path: Path, template: Path) -> None:
    path = tmp_path / "mlflow.db"
    ensure_database(path, template)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0'")
    connection.close()
    with pytest.raises(ClusterError, match=rf"mlflow db upgrade sqlite:///{path}"):
        open_client(f"sqlite:///{path}")


def test_shown_hides_password() -> None:
    assert shown("postgresql://me:secret@db/mlflow") == "postgresql://me:***@db/mlflow"


def test_failing_step_is_reported_even_if_tracking_fails_too(
    tracking_uri: str, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(tracking_uri, "vl3", "r", "r", template=template)
    step = tracker.step("train")

    def refuse(*_: object, **__: object) -> None:
        raise ClusterError("the server is gone")

    monkeypatch.setattr(tracker, "open_step", refuse)
    with pytest.raises(ValueError, match="the step's own error"), step:
        raise ValueError("the step's own error")


def test_tracking_modules_import_neither_mlflow_nor_torch() -> None:
    code = (
        "import sys, vl3.tracking.runs, vl3.tracking.registry, vl3.tracking.gates, vl3.tracking.environment;"
        "print(sorted({'mlflow', 'torch', 'pandas', 'sqlalchemy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.fixture
def client_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """mlflow-skinny as the images of the steps have it: no SQLAlchemy."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    monkeypatch.setitem(sys.modules, "sqlalchemy.exc", None)


@pytest.mark.usefixtures("client_alone")
def test_a_client_without_databases_refuses_them_and_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"postgresql://vl3:\*\*\*@db/mlflow.*mlflow-skinny.*http\(s\)://host:port"):
        open_client("postgresql://vl3:secret@db/mlflow")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("client_alone")
def test_a_client_without_databases_reports_a_refusing_server(refusing_server: str) -> None:
    with pytest.raises(ClusterError, match="could not open the tracking store"):
        open_client(refusing_server)
