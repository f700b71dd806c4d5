"""Folders that appear complete or not at all: filled under another name, then renamed."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vl3.errors import StorageError
from vl3.system.files import storage_errors
from vl3.system.locks import HeldError, hold


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder `<target>.partial` to fill, which is renamed to `target` when the block ends without an error.

    After an error nothing is left; after a kill only the partial folder, which the next attempt removes.

    Raises:
        StorageError: the target exists, another process is filling it, the disk is full, or permission is missing.
    """
    with _locked(target), filled_folder(target) as filling:
        yield filling


@contextmanager
def resumed_folder(target: Path) -> Iterator[Path]:
    """Like whole_folder, for long work: the partial folder stays after an error or a kill, and is filled further.

    Raises:
        StorageError: as whole_folder.
    """
    with _locked(target):
        partial = partial_of(target)
        partial.mkdir(exist_ok=True)
        yield partial
        partial.rename(target)  # over an empty folder, too


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    with storage_errors(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise StorageError(
                f"{target} exists and is not empty. It is never overwritten: remove it or choose another folder."
            )
        try:
            with hold(target.with_name(f".{target.name}.lock"), wait_seconds=0, is_kept=False):
                yield
        except HeldError as error:
            raise StorageError(
                f"{partial_of(target)} is being written by {error.holder}. Wait for it or choose another folder."
            ) from error


@contextmanager
def filled_folder(target: Path) -> Iterator[Path]:
    """Like whole_folder, without its checks: the caller holds a lock, and `target` is missing or empty."""
    partial = partial_of(target)
    remove(partial)
    partial.mkdir()
    try:
        yield partial
        partial.rename(target)  # over an empty folder, too
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_of(target: Path) -> Path:
    """The name under which a folder is filled."""
    return target.with_name(f"{target.name}.partial")


@contextmanager
def scratch_folder(beside: Path | None, name: str) -> Iterator[Path]:
    """A new folder that only the caller knows, removed at the end unless it was renamed.

    Args:
        beside: where it will be published; being on the same file system, it can be renamed to there. None uses the
            temporary folder.
        name: part of its name, which begins with a dot, so that no reader mistakes it for the finished folder.

    Raises:
        StorageError: it cannot be created.
    """
    with storage_errors(beside or Path(tempfile.gettempdir())):
        if beside is not None:
            beside.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=beside.parent if beside is not None else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_temporary_folder(name: str) -> Path:
    """A folder `<name>-<user id>` in the temporary folder, which only this user can write; created if it is missing.

    Raises:
        StorageError: it cannot be created, or somebody else made it, who could change what is trained on.
    """
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    require_own(folder)
    return folder


def require_own(folder: Path) -> None:
    """Create a folder for this user alone, or check that an existing one is this user's.

    Raises:
        StorageError: it cannot be created, or is a link or another user's.
    """
    with storage_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise StorageError(
            f"{folder}: the folder is a link or belongs to another user, who could change what is trained on. "
            "Remove it, or set TMPDIR to your own folder."
        )


def own_folder(path: Path) -> Path:
    """A folder of the run, created if it is missing; a link in its place, which may lead anywhere, is removed first.

    Raises:
        StorageError: it cannot be created.
    """
    with storage_errors(path):
        if path.is_symlink():
            path.unlink()
        path.mkdir(parents=True, exist_ok=True)
    return path


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with its content; no error if there is nothing to remove."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
