"""The SQLite file of the default tracking store, and a template that saves its migrations at the first use.

MLflow migrates a fresh SQLite file through its whole history: 1.5 to 10 seconds, once per run folder. `make_template`
does that once at set-up; `ensure_database` then copies the result. Without a template MLflow migrates as usual.
"""

import logging
import os
import shutil
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path

from vl3.errors import StorageError
from vl3.system.files import sibling, storage_errors
from vl3.system.uris import file_uri, sqlite_uri

log = logging.getLogger(__name__)


def make_template(path: Path) -> Path:
    """Create a migrated empty database for the installed MLflow; an existing one of this version is kept.

    Raises:
        StorageError: the file cannot be written.
    """
    if is_template_current(path):
        return path
    from mlflow.tracking import MlflowClient

    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            fresh = Path(folder) / "mlflow.db"
            uri = sqlite_uri(fresh)
            MlflowClient(uri, uri).search_experiments(max_results=1)
            _write_mark(fresh)
            fresh.replace(path)
    return path


def is_template_current(path: Path) -> bool:
    """Whether the file is a template of the installed MLflow version."""
    return path.is_file() and _read_mark(path) == _version_mark()


def ensure_database(path: Path, template: Path | None = None) -> None:
    """Copy the template if there is no database yet; without a template MLflow creates the database.

    Raises:
        StorageError: the folder or file cannot be written, or the file is not an SQLite database.
    """
    if path.exists() and path.stat().st_size:
        _check_database(path)
        return
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if template is not None and is_template_current(template):
            _copy_once(template, path)
        else:
            path.touch()


def _copy_once(template: Path, path: Path) -> None:
    """Copy under a temporary name and link it into place, so that only one of two processes provides the file."""
    if path.exists() and not path.stat().st_size:
        path.unlink()
    temporary = sibling(path)
    try:
        shutil.copyfile(template, temporary)
        os.link(temporary, path)
    except FileExistsError:
        log.info("another process has created %s", path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_database(path: Path) -> None:
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise StorageError(
            f"{path}: no permission to write the tracking database or its folder. Correct their owner or use "
            "another run folder."
        )
    with path.open("rb") as file:
        if file.read(15) != b"SQLite format 3":
            raise StorageError(
                f"{path}: not an SQLite database, so runs and model versions cannot be read from it. "
                "Restore it from a backup, or move it away and start again."
            )


def _version_mark() -> int:
    """The installed MLflow version as a number, for SQLite's user_version, which MLflow does not use.

    3.14.0 is 3_014_000; of 3.14.0rc1, `0rc1` counts as 0.
    """
    digits = [int(part) if part.isdigit() else 0 for part in version("mlflow").split(".")[:3]]
    return digits[0] * 1_000_000 + digits[1] * 1_000 + digits[2]


def _read_mark(path: Path) -> int:
    try:
        connection = sqlite3.connect(f"{file_uri(path)}?mode=ro", uri=True)
        try:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.DatabaseError:
        return 0


def _write_mark(path: Path) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.execute(f"PRAGMA user_version = {_version_mark()}")
        connection.commit()
    finally:
        connection.close()
