"""MLflow's own server application in a process of its own, with artifacts through it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vl3.tracking.database import make_template

_SERVER = """
from mlflow.server import app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def start_mlflow(folder: Path) -> Iterator[int]:
    """A server with its database and artifacts in `folder`; yields its port on 127.0.0.1."""
    folder.mkdir(parents=True, exist_ok=True)
    make_template(folder / "mlflow.db")
    variables = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_REGISTRY_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }
    with (folder / "server.log").open("w") as log:  # a separate process: it sets MLFLOW_* for its whole process
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], env=os.environ | variables, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    assert port, (folder / "server.log").read_text()
    yield int(port)
    server.kill()
    server.communicate()
