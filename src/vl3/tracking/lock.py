"""Locks around what only one process may do at a time: a file lock next to SQLite, a unique name on a server."""

import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vl3.errors import ClusterError
from vl3.system.clock import now_to_the_second
from vl3.system.locks import HeldError, hold
from vl3.system.retry import Pauses, retry
from vl3.tracking.client import UNREADABLE, require_answer

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

WAIT_SECONDS = 15.0
"""Longest wait for a lock; what it protects takes well under a second."""
SERVER_WAIT_SECONDS = 60.0
"""The same on a server, where it takes a few requests and several runs may compete."""
ABANDONED_SECONDS = 600.0
"""Age at which a lock on a server counts as abandoned: its holder's few requests would have failed much earlier."""
_RELEASE_TRIES = 5
_RELEASE_PAUSES = Pauses(first_seconds=0.2, longest_seconds=2.0)
_SERVER_PAUSES = Pauses(first_seconds=1.5, longest_seconds=1.5)
"""Random pauses of 0.75 to 1.5 s, so that waiting clients do not retry at the same moment."""


@contextmanager
def file_lock(database: Path, *, holder: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold `<database>.lock`. The kernel releases it when the process ends, whatever the cause.

    Raises:
        ClusterError: another process holds it for longer than `wait_seconds`; the message names it.
        StorageError: the lock file cannot be written.
    """
    path = database.with_name(database.name + ".lock")
    try:
        with hold(path, wait_seconds=wait_seconds, holder=holder):
            yield
    except HeldError as error:
        who = error.holder.facts.get("holder")
        raise ClusterError(
            f"{path} is held by another process: {error.holder}{f' ({who})' if who else ''}. Both would write at the "
            "same time. Wait until it ends, or end it, and try again."
        ) from None


@contextmanager
def name_lock(
    client: "MlflowClient", model: str, *, holder: str, wait_seconds: float = SERVER_WAIT_SECONDS
) -> Iterator[None]:
    """Hold a lock on a server: a registered model with a reserved name, which only one client can create.

    A killed pod leaves its lock behind. It is removed when it is older than ABANDONED_SECONDS.

    Raises:
        ClusterError: another client holds it for longer than `wait_seconds`; the message names it and the remedy.
    """
    name, mine = f"{model}--promotion-lock", _holder_text(holder)
    try:
        retry(
            lambda: _take_lock(client, name, mine),
            may_pass=lambda error: isinstance(error, _TakenError),
            pauses=_SERVER_PAUSES,
            deadline_seconds=wait_seconds,
            note=lambda *_: None,
        )
    except _TakenError as error:
        raise ClusterError(_held_message(name, error.found)) from None
    except BaseException:  # the answer may have been lost, and the lock taken
        _release(client, name, mine)
        raise
    try:
        yield
    finally:
        _release(client, name, mine)


class _TakenError(Exception):
    """Another client holds the lock."""

    def __init__(self, found: "RegisteredModel | None") -> None:
        super().__init__()
        self.found = found


def _take_lock(client: "MlflowClient", name: str, mine: str) -> None:
    """Create the lock; an abandoned one is removed first."""
    from mlflow.exceptions import MlflowException

    while True:
        try:
            made = client.create_registered_model(name, description=mine)
            require_answer(made.name == name, f"lock {name}")
            return
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = _lock_of(client, name)
        if found is not None and found.description == mine:  # created by our request, whose answer was lost
            return
        if found is None or not _is_abandoned(found):
            raise _TakenError(found)
        log.warning("removing the abandoned lock %s (%s)", name, found.description)
        _remove_lock(client, name, found.description)


def _release(client: "MlflowClient", name: str, mine: str) -> None:
    """Remove our lock, with patience: left behind it would keep everybody waiting. What was done under it is done."""
    from mlflow.exceptions import MlflowException

    try:
        retry(
            lambda: _remove_lock(client, name, mine),
            may_pass=lambda error: not isinstance(error, KeyboardInterrupt | SystemExit),
            pauses=_RELEASE_PAUSES,
            tries=_RELEASE_TRIES,
        )
    except (MlflowException, *UNREADABLE) as error:
        log.warning("the lock %s could not be removed and ends after %g s: %s", name, ABANDONED_SECONDS, error)


def _lock_of(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    require_answer(found.name == name, f"lock {name}")  # JSON that a proxy answers reads as a model without a name
    return found


def _is_abandoned(found: "RegisteredModel") -> bool:
    """Whether it was created, by the server's clock, too long ago; clocks differ by much less than that."""
    return time.time() - found.creation_timestamp / 1000 > ABANDONED_SECONDS


def _remove_lock(client: "MlflowClient", name: str, description: str) -> None:
    """Remove the lock if it still has this description, and so is not another client's; look whether it is gone."""
    found = _lock_of(client, name)
    if found is not None and found.description == description:
        client.delete_registered_model(name)
        left = _lock_of(client, name)
        require_answer(left is None or left.description != description, f"removal of lock {name}")


def _held_message(name: str, found: "RegisteredModel | None") -> str:
    return (
        f"the promotion lock {name!r} is held by another process: {found.description if found else 'unknown'}. Two "
        "promotions at once could both win. Wait until it ends and try again; if that process is gone, its lock is "
        f"removed {ABANDONED_SECONDS / 60:g} minutes after it was taken, or delete the registered model of this name."
    )


def _holder_text(holder: str) -> str:
    facts = {"holder": holder, "pid": os.getpid(), "host": socket.gethostname(), "since": now_to_the_second()}
    return json.dumps(facts | {"id": secrets.token_hex(4)})
