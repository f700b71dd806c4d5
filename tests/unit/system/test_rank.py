"""What every rank does: the first error is recorded, a request to stop remembered, the status is the family's."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vl3.errors import ConfigError, StorageError
from vl3.system.rank import StopRequest, rank_numbers, record_failure

LOG = logging.getLogger("test")


def test_the_first_recorded_failure_stays(tmp_path: Path) -> None:
    path = tmp_path / "run" / "failure.json"
    record_failure(path, ConfigError("the first"), LOG)
    record_failure(path, StorageError("a consequence"), LOG)
    assert json.loads(path.read_text()) == {"family": "ConfigError", "message": "the first"}
    assert list(path.parent.iterdir()) == [path]


def test_a_request_to_stop_is_remembered(caplog: pytest.LogCaptureFixture) -> None:
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop = StopRequest(LOG, "ending soon")
    try:
        stop.install()
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    assert "asked to stop by SIGTERM: ending soon" in caplog.text


def test_a_process_without_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match=r"RANK is not set\. Start workers with torchrun"):
        rank_numbers()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("return 0", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise StorageError('full')", 6, "StorageError: full"),
        ("raise ValueError('odd')", 1, "ended by ValueError: odd"),
    ],
)
def test_the_status_says_how_it_ended(body: str, status: int, said: str) -> None:
    program = f"""
import logging
from vl3.errors import StorageError
from vl3.system.rank import log_as_rank, run_as_rank
def main(arguments):
    log_as_rank()
    {body}
run_as_rank(main, logging.getLogger("test"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == status
    assert said in done.stderr
