"""How a command ends: the one place where errors become messages and exit codes.

The last line on stderr is the message; the traceback goes to a log file, or to the terminal with --debug.
"""

import errno
import logging
import logging.handlers
import os
import sys
import tempfile
import traceback
from pathlib import Path
from types import TracebackType

from vl3.errors import ClusterError, StorageError, Vl3Error
from vl3.system.secrets import masked

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells count it (128 + SIGINT)."""
UNEXPECTED = 1
"""Exit status of an error outside the families: a bug in vl3."""


class RunEndedError(SystemExit):
    """A command ended with this exit code and has said why itself."""


class _MaskingFormatter(logging.Formatter):
    """Hides passwords and tokens of addresses, which arguments and other programs' errors may have."""

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


class Terminal:
    """Context in which a command runs; handles every exception and keeps the exit status.

    Attributes:
        debug: whether tracebacks are shown on the terminal.
        exit_code: the status to end with.
    """

    def __init__(self) -> None:
        self.debug = False
        self.exit_code = 0

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if error is None:
            return True
        if isinstance(error, SystemExit):
            self.exit_code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if self.exit_code == INTERRUPTED and not isinstance(
                error, RunEndedError
            ):  # typer caught the KeyboardInterrupt silently
                self._end(INTERRUPTED, "interrupted")
        elif isinstance(error, KeyboardInterrupt):
            self._end(INTERRUPTED, "interrupted")
        elif isinstance(error, BrokenPipeError):
            self._close_stdout()
        elif isinstance(error, Vl3Error):
            self._log(error)
            self._end(error.exit_code, f"{type(error).__name__}: {error}")
        elif isinstance(error, OSError):
            self._log(error)
            family = claim_os_error(error)
            self._end(family.exit_code, f"{type(family).__name__}: {family}")
        else:
            where = self._log(error)
            reason = " ".join(str(error).split())[:300]
            self._end(UNEXPECTED, f"unexpected {type(error).__name__}: {reason}. This is a bug in vl3; see {where}")
        return True

    def _end(self, code: int, message: str) -> None:
        self.exit_code = code
        sys.stdout.flush()
        headline, *details = masked(message).splitlines()
        for line in [*details, headline]:  # the headline is the last line, after its details
            print(line, file=sys.stderr)

    def _close_stdout(self) -> None:
        """The reader has closed the pipe (`vl3 ... | head`): end silently, also when Python flushes at exit."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        self.exit_code = 0

    def _log(self, error: BaseException) -> str:
        """Write the traceback to the log (and to the terminal with --debug); returns the log's path."""
        if self.debug:
            traceback.print_exception(error)
        path = log_path()
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=1_000_000, backupCount=1, encoding="utf-8")
        handler.setFormatter(_MaskingFormatter("%(asctime)s %(message)s"))
        record = logging.LogRecord(
            "vl3", logging.ERROR, __file__, 0, "%s", (sys.argv,), (type(error), error, error.__traceback__)
        )
        handler.handle(record)
        handler.close()
        return str(path)


def set_up_logging() -> None:
    """Send log lines to the log file: the terminal shows only what the command prints, and errors."""
    handler = logging.handlers.RotatingFileHandler(
        log_path(), maxBytes=1_000_000, backupCount=1, encoding="utf-8", delay=True
    )
    handler.setFormatter(_MaskingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def claim_os_error(error: OSError) -> Vl3Error:
    """An error of the operating system as an error of a family, with advice."""
    path = error.filename or "the output"
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "The disk is full. Free space there, or use another folder."
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "Give this user permission, or use another folder."
    elif error.errno == errno.EADDRINUSE:
        return ClusterError(f"a port is in use: {reason}. Stop the process that uses it, or start again.")
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
        advice = "Check the path."
    else:
        advice = "Check the disk and the path."
    return StorageError(f"{path}: {reason}. {advice}")


def log_path() -> Path:
    """The log file of the command line: in the user's state folder, or the temporary one if that is not writable."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    for folder in (Path(state) / "vl3", Path(tempfile.gettempdir()) / f"vl3-{os.getuid()}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder / "vl3.log"
    return Path(os.devnull)
