"""How commands end: exit codes by family, one message, no traceback on the terminal."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vl3.cli.failure import Terminal, claim_os_error, log_path
from vl3.errors import FAMILIES, ClusterError, GateError, StorageError, Vl3Error


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "vl3" / "vl3.log"


def end_with(error: BaseException, *, debug: bool = False) -> int:
    terminal = Terminal()
    terminal.debug = debug
    with terminal:
        raise error
    return terminal.exit_code


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.__name__)
def test_family_decides_the_exit_code(family: type[Vl3Error], capsys: pytest.CaptureFixture[str], state: Path) -> None:
    assert end_with(family("a.b=1 is wrong. Set 2.")) == family.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{family.__name__}: a.b=1 is wrong. Set 2.\n"
    assert "Traceback" in state.read_text()


def test_table_comes_before_the_sentence_it_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert end_with(GateError("v3 is refused.\ngate  passed\nmean  no")) == 5
    assert capsys.readouterr().err == "gate  passed\nmean  no\nGateError: v3 is refused.\n"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert end_with(StorageError("gone"), debug=True) == 6
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "StorageError: gone"


def test_unexpected_error_names_the_log(capsys: pytest.CaptureFixture[str], state: Path) -> None:
    assert end_with(ZeroDivisionError("division\nby zero")) == 1
    assert capsys.readouterr().err == (
        f"unexpected ZeroDivisionError: division by zero. This is a bug in vl3; see {state}\n"
    )
    assert "ZeroDivisionError: division" in state.read_text()


@pytest.mark.parametrize(
    ("number", "family", "advice"),
    [
        (errno.ENOSPC, StorageError, "The disk is full. Free space there, or use another folder."),
        (errno.EACCES, StorageError, "Give this user permission, or use another folder."),
        (errno.EROFS, StorageError, "Give this user permission, or use another folder."),
        (errno.ENOENT, StorageError, "Check the path."),
        (errno.EIO, StorageError, "Check the disk and the path."),
        (errno.EADDRINUSE, ClusterError, "Stop the process that uses it, or start again."),
    ],
)
def test_error_of_the_operating_system_gets_a_family_and_advice(
    number: int, family: type[Vl3Error], advice: str
) -> None:
    error = claim_os_error(OSError(number, os.strerror(number), "/data/x"))
    assert type(error) is family
    assert str(error).endswith(advice)
    assert os.strerror(number) in str(error)
    assert ("/data/x" in str(error)) == (family is StorageError)


def test_exit_status_of_the_parser_is_kept() -> None:
    assert end_with(SystemExit(2)) == 2
    assert end_with(SystemExit(None)) == 0


def test_ctrl_c_ends_as_shells_expect(capsys: pytest.CaptureFixture[str]) -> None:
    assert end_with(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_log_goes_to_the_temporary_folder_where_the_state_folder_is_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert log_path() == tmp_path / "temporary" / f"vl3-{os.getuid()}" / "vl3.log"


def test_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -c 'from vl3.cli.main import main; main()' stages table | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "# The stages\n", "")


def test_signal_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    code = """
import sys, threading, os, signal
from vl3.cli import main, stages
def page():
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(10)
stages.stage_page = page
main.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "stages", "table"], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.strip() == "interrupted"
