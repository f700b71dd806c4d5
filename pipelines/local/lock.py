"""One runner at a time in a run folder."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from vl3.errors import ConfigError, StorageError
from vl3.lifeline import runner_mark


class RunLock:
    """A lock on a run folder that ends with the process that holds it, however that ends.

    The file also names its last holder, so that a refused second run can say who is at work, and a restart after a
    SIGKILL can wait for what that holder left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.former: dict[str, Any] = {}
        self._descriptor = -1

    def acquire(self, **facts: str) -> None:
        """Take the lock.

        Raises:
            ConfigError: another runner has it; its process id is named. A ConfigError, not a ClusterError, because
                trying again unchanged is not the cure: the person who started the run chooses another RUN or waits.
            StorageError: the file cannot be opened.
        """
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(
                f"{self.path}: the lock file cannot be opened ({error.strerror}). Correct the folder's owner or choose "
                "another RUN."
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self._read().get("pid", "unknown")
            raise ConfigError(
                f"run folder {self.path.parent} is in use by process {holder}. Two runs in one folder would write over "
                "each other. Wait for it, stop it, or choose another RUN."
            ) from error
        self.former = self._read()
        self._write({"pid": os.getpid(), "mark": runner_mark(os.getpid()), **facts})

    def release(self) -> None:
        """Give the lock back and forget the holder."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(os.pread(self._descriptor, 4096, 0) or b"{}")
        except ValueError:
            return {}

    def _write(self, data: dict[str, Any]) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(data).encode(), 0)
