"""MLflow's pages on a database file, served on this machine only."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from vl3.errors import ClusterError, ConfigError
from vl3.system.uris import sqlite_path
from vl3.tracking.database import ensure_database

_ADDRESS = "127.0.0.1"
_PORTS = range(5000, 5100)
_POLL_SECONDS = 0.2


@contextmanager
def served(tracking_uri: str, port: int = 0) -> Iterator["tuple[str, subprocess.Popen[str]]"]:
    """MLflow's server, as long as the context lasts.

    Args:
        tracking_uri: `sqlite:///...` or another database.
        port: its port; 0 takes a free one.

    Yields:
        Its address, once it answers, and its process.

    Raises:
        ConfigError: the port is in use.
        ClusterError: the server does not start.
        StorageError: the database cannot be read.
    """
    port = _free_port(port)
    command = [sys.executable, "-m", "mlflow", "server", "--host", _ADDRESS, "--port", str(port), "--workers", "1"]
    if tracking_uri.startswith("sqlite:"):
        path = sqlite_path(tracking_uri)
        ensure_database(path)
        command += ["--default-artifact-root", (path.absolute().parent / "mlartifacts").as_uri()]
    server = subprocess.Popen(
        command,
        env=os.environ | {"MLFLOW_BACKEND_STORE_URI": tracking_uri},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = f"http://{_ADDRESS}:{port}"
        _wait_for(server, address)
        yield address, server
    finally:
        server.terminate()
        server.wait()


def _free_port(port: int) -> int:
    for number in [port] if port else _PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_ADDRESS, number))
            except OSError:
                continue
            return number
    raise ConfigError(
        f"port {port} of this machine is in use. Leave --port out to take a free one."
        if port
        else f"no port from {_PORTS[0]} to {_PORTS[-1]} is free on this machine. Name another with --port."
    )


def _wait_for(server: "subprocess.Popen[str]", address: str) -> None:
    """Wait until the server answers; it takes as long as it takes to import MLflow."""
    while True:
        if server.poll() is not None:
            lines = (server.communicate()[1] or "").strip().splitlines()
            raise ClusterError(
                f"MLflow's server ended with exit code {server.returncode}: {lines[-1] if lines else 'no message'}. "
                "Check the database, or use another one with --tracking."
            )
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310  # our own address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_SECONDS)
