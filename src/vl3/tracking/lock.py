"""Locks around what must not happen twice at once: a file lock beside SQLite, a unique name on a server."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from vl3.errors import ClusterError
from vl3.store.writing import storage_errors

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

WAIT_SECONDS = 15.0
"""Time that a lock is waited for; what it protects takes well under a second."""
_POLL_SECONDS = 0.05


@contextmanager
def file_lock(database: Path, *, holder: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold `<database>.lock`. The kernel frees it when the process ends, however that comes.

    Raises:
        ClusterError: another process holds it for longer than `wait_seconds`; the message names it.
        StorageError: the lock file cannot be written.
    """
    path = database.with_name(database.name + ".lock")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        _acquire(file, path, time.monotonic() + wait_seconds)
        file.seek(0)
        file.truncate()
        file.write(_holder_text(holder))
        file.flush()
        yield


@contextmanager
def name_lock(client: "MlflowClient", model: str, *, holder: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold a lock on a server: a registered model of a reserved name, which only one client can create.

    Raises:
        ClusterError: another client holds it for longer than `wait_seconds`; the message names it and the way out.
    """
    from mlflow.exceptions import MlflowException

    name = f"{model}--promotion-lock"
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            client.create_registered_model(name, description=_holder_text(holder))
            break
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            if time.monotonic() > deadline:
                raise ClusterError(_held_message(client, name)) from error
            time.sleep(1.0)
    try:
        yield
    finally:
        client.delete_registered_model(name)


def _acquire(file: TextIO, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.seek(0)
                raise ClusterError(
                    f"{path} is held by another process: {file.read().strip() or 'unknown'}. Two would write at once. "
                    "Wait until it ends, or end it, and try again."
                ) from None
            time.sleep(_POLL_SECONDS)
        else:
            return


def _held_message(client: "MlflowClient", name: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        text = client.get_registered_model(name).description
    except MlflowException:
        text = "unknown"
    return (
        f"the promotion lock {name!r} is held by another process: {text}. Two promotions at once could both win. Wait "
        "until it ends and try again; if that process is gone, delete the registered model of this name."
    )


def _holder_text(holder: str) -> str:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"holder": holder, "pid": os.getpid(), "host": socket.gethostname(), "since": since})
