"""One runner at a time in a run folder, and what a runner that was killed left behind."""

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
from vl3.system.locks import HeldError, Holder, hold
from vl3.system.processes import end_marked, wait_for

_MARK = re.compile(r"([0-9]{1,10}):[0-9]{1,20}")


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[Path]:
    """Be the only runner in a run folder; yields the path of a temporary folder that nobody has made yet.

    A runner that was killed has left the lock free and its name in it: its processes are waited for and its temporary
    folder is removed before this one begins, for it would write where they write.

    Raises:
        ConfigError: another runner has the folder. Not a ClusterError, because trying again unchanged is not the cure:
            the person who started the run chooses another RUN or waits.
        StorageError: the lock's file cannot be written.
    """
    temporary = Path(tempfile.gettempdir()) / f"{_prefix(folder)}{secrets.token_hex(4)}"
    mark = runner_mark(os.getpid())
    try:
        with hold(folder / "run.lock", wait_seconds=0, mark=mark, temporary=str(temporary)) as former:
            clean_up_after(former, folder)
            yield temporary
    except HeldError as error:
        raise ConfigError(
            f"run folder {folder} is in use by {error.holder}. Two runs in one folder would write over each other. "
            "Wait for it, stop it, or choose another RUN."
        ) from error


def clean_up_after(former: Holder, folder: Path) -> None:
    """Wait until nothing of a killed runner is left: its lifelines need a moment; then end the rest.

    What the lock's file says is believed only where it can be no other run's: the runner of the mark is gone, and the
    temporary folder has the name that a run in this very folder gives it.
    """
    mark = former.facts.get("mark", "")
    if _is_gone(mark):
        marked = f"{RUNNER_VARIABLE}={mark}"
        if not wait_for(marked, timeout_seconds=5.0):
            end_marked(marked, grace_seconds=1.0)
    temporary = Path(former.facts.get("temporary", ""))
    if _is_ours(temporary, folder):
        shutil.rmtree(temporary, ignore_errors=True)


def _is_gone(mark: str) -> bool:
    """Whether this is the mark of a runner, and that runner does not run any more."""
    match = _MARK.fullmatch(mark)
    return match is not None and runner_mark(int(match[1])) != mark


def _is_ours(path: Path, folder: Path) -> bool:
    """Whether a path is a temporary folder as a run in `folder` makes it: by place and name, real, and our own."""
    if path.parent != Path(tempfile.gettempdir()) or not re.fullmatch(f"{_prefix(folder)}[0-9a-f]{{8}}", path.name):
        return False
    try:
        facts = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def _prefix(folder: Path) -> str:
    """Beginning of the temporary folders' names of the runs in `folder`, and of no others."""
    return f"vl3-run-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}-"
