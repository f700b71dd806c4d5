"""What is said of a process that a signal ended."""

import signal
from pathlib import Path

import pytest

from vl3.system import endings
from vl3.system.endings import MemoryKills, signal_meaning


@pytest.fixture
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /sys/fs/cgroup, and files in place of those in /proc."""
    monkeypatch.setattr(endings, "_CGROUPS", tmp_path)
    monkeypatch.setattr(endings, "_OWN_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(endings, "_MACHINE", tmp_path / "vmstat")
    return tmp_path


def write(path: Path, count: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"low 0\noom 9\noom_kill {count}\noom_group_kill 7\n")
    return path


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/a/b", "a/b/memory.events"),
        ("0::/", "memory.events"),
        ("0::/../outside", "memory.events"),
        ("4:cpu,memory:/c", "memory/c/memory.oom_control"),
        ("4:memory:/docker/abc", "memory/memory.oom_control"),
    ],
    ids=["version 2", "the root", "a container", "version 1", "a container of version 1"],
)
def test_memory_is_named_when_the_kernels_count_rose(counts: Path, line: str, file: str) -> None:
    (counts / "cgroup").write_text(f"9:pids:/\n{line}\n")
    path = write(counts / file, 3)
    kills = MemoryKills()
    write(path, 4)
    text = signal_meaning(signal.SIGKILL, kills)
    assert text == (
        "signal 9, SIGKILL; who sent it is not known: memory ran out: the kernel's count of such kills in "
        f"{path} rose from 3 to 4"
    )


def test_the_machines_count_is_the_last_resort(counts: Path) -> None:
    path = write(counts / "vmstat", 3)
    kills = MemoryKills()
    assert f"memory is not it, because the kernel's count of such kills in {path} stayed at 3" in kills.evidence()
    write(path, 5)
    assert f"memory ran out: the kernel's count of such kills in {path} rose from 3 to 5" in kills.evidence()


def test_a_count_that_cannot_be_read_is_said_to_be_unknown(counts: Path) -> None:
    (counts / "cgroup").write_bytes(b"\xff\xfe\n::\nnonsense")
    kills = MemoryKills()
    assert "whether memory ran out cannot be read on this machine, so it is one possible cause" in kills.evidence()
    write(counts / "vmstat", 5)  # only now: there is nothing to compare it with
    assert "cannot be read" in kills.evidence()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGSEGV, "signal 11, SIGSEGV: a fault in native code, such as a library or a driver"),
        (signal.SIGABRT, "signal 6, SIGABRT: native code gave up, and its last lines say why"),
        (signal.SIGUSR1, "signal 10, SIGUSR1"),
        (99, "signal 99"),
    ],
)
def test_other_signals_have_their_own_meaning(number: int, expected: str) -> None:
    assert signal_meaning(number, MemoryKills()) == expected


def test_a_bus_error_tells_of_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert signal_meaning(signal.SIGBUS, MemoryKills()).startswith("signal 7, SIGBUS: a file in memory lost its space")
    monkeypatch.setattr(endings, "_SHARED_MEMORY", tmp_path / "gone")
    assert signal_meaning(signal.SIGBUS, MemoryKills()).endswith("gone is missing)")
