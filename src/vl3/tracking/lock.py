"""Locks around what must not happen twice at once: a file lock beside SQLite, a unique name on a server."""

import fcntl
import json
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from vl3.errors import ClusterError
from vl3.system.files import storage_errors

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

WAIT_SECONDS = 15.0
"""Time that a lock is waited for; what it protects takes well under a second."""
SERVER_WAIT_SECONDS = 60.0
"""The same on a server, where it takes some requests and several runs may be at it."""
ABANDONED_SECONDS = 600.0
"""Age at which a lock on a server has outlived its holder: its few requests are given up much earlier."""
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
def name_lock(
    client: "MlflowClient", model: str, *, holder: str, wait_seconds: float = SERVER_WAIT_SECONDS
) -> Iterator[None]:
    """Hold a lock on a server: a registered model of a reserved name, which only one client can create.

    A pod that is killed leaves its lock behind. One that is older than anything it protects could take is removed.

    Raises:
        ClusterError: another client holds it for longer than `wait_seconds`; the message names it and the way out.
    """
    from mlflow.exceptions import MlflowException

    name, mine = f"{model}--promotion-lock", _holder_text(holder)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            client.create_registered_model(name, description=mine)
            break
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = _lock_of(client, name)
            if found is not None and found.description == mine:  # made by a request whose answer was lost
                break
            if found is not None and _is_abandoned(found):
                log.warning("the lock %s is removed: its holder left it behind (%s)", name, found.description)
                _remove_lock(client, name, found.description)
                continue
            if time.monotonic() > deadline:
                raise ClusterError(_held_message(name, found)) from error
            time.sleep(random.uniform(0.5, 1.5))  # those who wait together must not ask together
    try:
        yield
    finally:
        _remove_lock(client, name, mine)


def _lock_of(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _is_abandoned(found: "RegisteredModel") -> bool:
    """By the server's time of making; clocks of machines may differ by much less than that."""
    return time.time() - found.creation_timestamp / 1000 > ABANDONED_SECONDS


def _remove_lock(client: "MlflowClient", name: str, description: str) -> None:
    """Remove the lock if it still is the one that is meant."""
    found = _lock_of(client, name)
    if found is not None and found.description == description:
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


def _held_message(name: str, found: "RegisteredModel | None") -> str:
    return (
        f"the promotion lock {name!r} is held by another process: {found.description if found else 'unknown'}. Two "
        "promotions at once could both win. Wait until it ends and try again; if that process is gone, its lock is "
        f"removed {ABANDONED_SECONDS / 60:g} minutes after it was taken, or delete the registered model of this name."
    )


def _holder_text(holder: str) -> str:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    facts = {"holder": holder, "pid": os.getpid(), "host": socket.gethostname(), "since": since}
    return json.dumps(facts | {"id": secrets.token_hex(4)})
