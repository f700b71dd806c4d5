"""What every process under torchrun does, whatever its work: lifelines, signals, the record of what ended it."""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from vl3.errors import FAMILIES, ConfigError, Vl3Error
from vl3.lifeline import RUNNER_VARIABLE, start_lifeline

LAUNCHER_VARIABLE = "VL3_LAUNCHER"
"""`pid:starttime` of the process that launched the work: a rank ends itself when that process ends."""
LAUNCHED_AT_VARIABLE = "VL3_LAUNCHED_AT"
"""Unix time of the launch."""


class StopRequest:
    """Remembers that the process was asked to stop; the work looks at it between two of its units."""

    def __init__(self, log: logging.Logger, what_follows: str) -> None:
        """Nobody has asked yet.

        Args:
            log: told when somebody does.
            what_follows: what the process does then.
        """
        self._log, self._what_follows = log, what_follows
        self._is_set = False

    def __call__(self) -> bool:
        """Whether the process was asked to stop."""
        return self._is_set

    def install(self) -> None:
        """Take SIGTERM and SIGINT as requests to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if not self._is_set:
            self._log.warning("asked to stop by %s: %s", signal.Signals(number).name, self._what_follows)
        self._is_set = True


def start_lifelines() -> None:
    """End this process, and what it started, with its runner and with its launcher."""
    start_lifeline(os.environ, kill_group=True)
    start_lifeline({RUNNER_VARIABLE: os.environ.get(LAUNCHER_VARIABLE, "")}, kill_group=True)


def log_as_rank() -> None:
    """Log to standard error, each line with the rank."""
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s rank {os.environ.get('RANK', '?')} %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def rank_numbers() -> dict[str, int]:
    """What torchrun says of this process: RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE.

    Raises:
        ConfigError: torchrun did not start it.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    try:
        return {name: int(os.environ[name]) for name in names}
    except KeyError as error:
        raise ConfigError(f"{error.args[0]} is not set. Start workers with torchrun, as vl3.launch does.") from error


def record_failure(path: Path, error: Vl3Error, log: logging.Logger) -> None:
    """Record the error that ended the work. The first rank to record one wins, because the others fail as a result."""
    family = type(error).__name__ if type(error).__name__ in FAMILIES else "ClusterError"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"family": family, "message": str(error)}), encoding="utf-8")
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError as storage_error:  # a full disk, for example; the error is still in the log
        log.error("%s could not be written: %s", path, storage_error)
    finally:
        temporary.unlink(missing_ok=True)


def run_as_rank(main: Callable[[list[str]], int], log: logging.Logger) -> NoReturn:
    """Run a rank's main function and end the process with its status, without waiting for threads and libraries.

    They have nothing left to clean up, and waiting for them takes seconds.
    """
    exit_code = _status_of(main, log)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _status_of(main: Callable[[list[str]], int], log: logging.Logger) -> int:
    try:
        return main(sys.argv[1:])
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Vl3Error as error:
        log.error("%s: %s", type(error).__name__, error)
        return error.exit_code
    except BaseException as error:  # nothing above would log it
        reason = (str(error).splitlines() or [""])[0]
        log.error("ended by %s: %s", type(error).__name__, reason, exc_info=error)  # the launcher quotes this line
        return 1
