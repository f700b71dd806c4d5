"""Allows one runner at a time in a run folder, and cleans up after a killed runner."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vl3.errors import ConfigError
from vl3.lifeline import RUNNER_VARIABLE, runner_mark
from vl3.system.locks import HeldError, Holder, hold, read_holder
from vl3.system.processes import end_marked, wait_for

_LOCK = "run.lock"
RUN_FOLDER_VARIABLE = "VL3_RUN_FOLDER"
"""Names the run's folder to its processes."""
_MARK = re.compile(r"([0-9]{1,10}):[0-9]{1,20}")


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[Path]:
    """Be the only runner in a run folder; yields the path of a temporary folder that does not exist yet.

    A killed runner has released the lock but left its name in the file: this one first waits for its processes to end,
    because they would write to the same files, and removes its temporary folder.

    Raises:
        ConfigError: another runner uses the folder. Not a ClusterError, because a retry would not help: the person who
            started the run has to wait or use another RUN.
        StorageError: the lock's file cannot be written.
    """
    temporary = Path(tempfile.gettempdir()) / f"{_prefix(folder)}{secrets.token_hex(4)}"
    mark = runner_mark(os.getpid())
    try:
        with hold(folder / _LOCK, wait_seconds=0, mark=mark, temporary=str(temporary)) as former:
            clean_up_after(former, folder)
            yield temporary
    except HeldError as error:
        raise ConfigError(
            f"run folder {folder} is in use by {error.holder}. Two runs in one folder would overwrite each other's "
            "files. Wait for it, stop it, or use another RUN."
        ) from error


def clean_up_after(former: Holder, folder: Path) -> None:
    """Wait a moment until the lifelines have ended a killed runner's processes; then end those that are left.

    The content of the lock's file is used only if it cannot belong to another run: the runner with the mark has ended
    (a process of its pid started at another time, or none is there), the processes say themselves that they work in
    this folder, and the temporary folder has a name that only a run in this folder gives it.
    """
    mark = former.facts.get("mark", "")
    if _is_gone(mark):
        marked = f"{RUNNER_VARIABLE}={mark}\0{RUN_FOLDER_VARIABLE}={folder}"
        if not wait_for(marked, timeout_seconds=5.0):
            end_marked(marked, grace_seconds=1.0)
    temporary = Path(former.facts.get("temporary", ""))
    if _is_ours(temporary, folder):
        shutil.rmtree(temporary, ignore_errors=True)


def is_running(folder: Path) -> bool:
    """Whether the runner that the lock of a run folder names is still running."""
    mark = read_holder(folder / _LOCK).facts.get("mark", "")
    return _MARK.fullmatch(mark) is not None and not _is_gone(mark)


def _is_gone(mark: str) -> bool:
    """Whether this is the mark of a runner that has ended."""
    match = _MARK.fullmatch(mark)
    return match is not None and runner_mark(int(match[1])) != mark


def _is_ours(path: Path, folder: Path) -> bool:
    """Whether a path is a temporary folder of a run in `folder`: by place and name, not a link, and this user's."""
    if path.parent != Path(tempfile.gettempdir()) or not re.fullmatch(f"{_prefix(folder)}[0-9a-f]{{8}}", path.name):
        return False
    try:
        facts = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def _prefix(folder: Path) -> str:
    """Prefix of the names of temporary folders that only runs in `folder` use."""
    return f"vl3-run-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}-"
