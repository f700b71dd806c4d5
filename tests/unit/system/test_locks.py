"""Locks between threads and processes, and the content of their files."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vl3.errors import StorageError
from vl3.system.locks import HeldError, Holder, hold, read_holder

HOLDER = """
import sys
from pathlib import Path
from vl3.system.locks import hold
with hold(Path(sys.argv[1]), purpose="test"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def start_holder(path: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    return process


def test_the_holder_is_named_while_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with hold(path, purpose="report") as former:
        assert former == Holder(facts={})
        said = json.loads(path.read_text())
        assert said["pid"] == os.getpid()
        assert set(said) == {"pid", "host", "since", "purpose"}
        with pytest.raises(HeldError, match=rf"lock is held by process {os.getpid()} on \S+ since \S+Z$") as caught:
            hold(path, wait_seconds=0).__enter__()
        assert caught.value.holder.facts["purpose"] == "report"
    assert path.read_bytes() == b""


def test_a_file_that_is_not_kept_goes_with_its_holder(tmp_path: Path) -> None:
    for _ in range(2):
        with hold(tmp_path / "lock", is_kept=False):
            assert (tmp_path / "lock").exists()
        assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_is_followed_at_once_and_known(tmp_path: Path) -> None:
    process = start_holder(tmp_path / "lock")
    with pytest.raises(HeldError, match=f"process {process.pid} "):
        hold(tmp_path / "lock", wait_seconds=0.1).__enter__()
    process.kill()
    process.communicate()
    with hold(tmp_path / "lock", wait_seconds=5) as former:
        assert (former.pid, former.facts["purpose"]) == (process.pid, "test")


def test_one_who_waits_says_so_once_and_gets_it(tmp_path: Path) -> None:
    told: list[str] = []
    process = start_holder(tmp_path / "lock")
    threading.Timer(0.3, process.kill).start()
    with hold(tmp_path / "lock", on_wait=lambda: told.append("waiting")):
        assert told == ["waiting"]
    process.communicate()
    with hold(tmp_path / "lock", on_wait=lambda: told.append("again")):
        assert told == ["waiting"], "nobody held it"


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    inside: list[int] = []

    def work() -> None:
        with hold(tmp_path / "lock", is_kept=False):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.01)
            inside.clear()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert inside == []
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_outlives_the_holder_does_not_hold_on(tmp_path: Path) -> None:
    with hold(tmp_path / "lock"):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
    with hold(tmp_path / "lock", wait_seconds=0):
        pass
    child.kill()
    child.join()


def test_an_error_inside_passes_and_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold(tmp_path / "lock"):
        raise KeyError
    with hold(tmp_path / "lock", wait_seconds=0):
        pass


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("/etc/hostname")])
def test_what_is_no_file_is_explained(tmp_path: Path, make) -> None:
    make(tmp_path / "lock")
    with pytest.raises(StorageError, match=r"lock: cannot be written"), hold(tmp_path / "lock"):
        pass


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"pid": 7, "host": "a", "since": "b"}', "process 7 on a since b"),
        ('{"pid": 7, "host": "a\\u001b[2J", "since": 5, "no name": "x"}', "process 7"),
        ('{"pid": true, "host": "a"}', "an unknown process"),
        ('{"pid": -1}', "an unknown process"),
        ("[7]", "an unknown process"),
        ("", "an unknown process"),
        ("{", "an unknown process"),
        ("[" * 60_000, "an unknown process"),
    ],
)
def test_what_a_file_says_is_taken_only_where_it_makes_sense(tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "lock").write_text(content)
    assert str(read_holder(tmp_path / "lock")) == text


def test_a_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert read_holder(tmp_path / "lock") == Holder(facts={})


def test_a_link_in_place_of_the_lock_is_neither_followed_nor_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text('{"pid": 7, "host": "elsewhere"}')
    link = tmp_path / "run.lock"
    link.symlink_to(outside)
    assert read_holder(link) == Holder(facts={})
    with pytest.raises(StorageError, match=r"run\.lock: cannot be written .*symbolic links"), hold(link):
        pass
    assert outside.read_text() == '{"pid": 7, "host": "elsewhere"}'
