"""One runner at a time in a run folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.local.lock import RunLock
from vl3.errors import ConfigError, StorageError
from vl3.lifeline import runner_mark

HOLDER = """
import sys
from pathlib import Path
from pipelines.local.lock import RunLock
RunLock(Path(sys.argv[1])).acquire()
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_runner_is_refused_with_the_first_ones_pid(holder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path} is in use by process {holder.pid}.*choose another RUN"):
        RunLock(tmp_path / "run.lock").acquire()


def test_a_killed_holder_leaves_the_lock_and_its_mark(holder, tmp_path: Path) -> None:
    mark = runner_mark(holder.pid)
    holder.kill()
    holder.wait()
    lock = RunLock(tmp_path / "run.lock")
    lock.acquire()
    assert lock.former == {"pid": holder.pid, "mark": mark}
    lock.release()


def test_a_released_lock_names_nobody(tmp_path: Path) -> None:
    for _ in range(2):
        lock = RunLock(tmp_path / "run.lock")
        lock.acquire()
        assert lock.former == {}
        lock.release()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_explained(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match=r"the lock file cannot be opened .* choose another RUN"):
        RunLock(tmp_path / "run.lock").acquire()


def test_a_lock_that_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    (tmp_path / "run.lock").mkdir()
    with pytest.raises(StorageError, match="the lock file cannot be opened"):
        RunLock(tmp_path / "run.lock").acquire()
