"""Folders that appear whole or not at all: filled under another name, then renamed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vl3.errors import StorageError
from vl3.system.files import storage_errors
from vl3.system.locks import HeldError, hold


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill under the name `<target>.partial`, which gets its name when the block ends without an error.

    After an error nothing is left; after a kill only the partial folder, which the next attempt removes.

    Raises:
        StorageError: the target exists, another process fills it, or the disk is full or closed to us.
    """
    with storage_errors(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise StorageError(
                f"{target} exists and is not empty. It is never overwritten: remove it or choose another folder."
            )
        try:
            lock = hold(target.with_name(f".{target.name}.lock"), wait_seconds=0, is_kept=False)
            with lock, filled_folder(target) as filling:
                yield filling
        except HeldError as error:
            raise StorageError(
                f"{partial_of(target)} is being written by {error.holder}. Wait for it or choose another folder."
            ) from error


@contextmanager
def filled_folder(target: Path) -> Iterator[Path]:
    """A whole_folder for a caller that lets nobody else fill it meanwhile, and replaces no content."""
    partial = partial_of(target)
    remove(partial)
    partial.mkdir()
    try:
        yield partial
        partial.rename(target)  # over an empty folder, too
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_of(target: Path) -> Path:
    """Where a folder is filled before it gets its name."""
    return target.with_name(f"{target.name}.partial")


@contextmanager
def scratch_folder(beside: Path | None, name: str) -> Iterator[Path]:
    """A new folder of our own, removed at the end unless it was renamed.

    Args:
        beside: where it is to be published, so that this is a rename on one file system; None takes the temporary
            folder.
        name: what it is for; its own name begins with a dot, so that no reader takes it for what it is to become.

    Raises:
        StorageError: it cannot be made.
    """
    with storage_errors(beside or Path(tempfile.gettempdir())):
        if beside is not None:
            beside.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=beside.parent if beside is not None else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; nothing to remove is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
