"""Local copies of folders in an object store: made once per machine, complete or not at all, and verified."""

import json
from collections.abc import Callable
from pathlib import Path

from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_text, read_plain, storage_errors
from vl3.system.folders import filled_folder, own_temporary_folder, remove, require_own
from vl3.system.locks import hold


def cached_folder(name: str, fill: Callable[[Path], None], cache: Path | None = None) -> Path:
    """The folder `name` of the cache, filled by one process while the others that want it wait.

    Args:
        name: digest of the content.
        fill: puts the verified content into an empty folder; called if there is no copy, or a changed one.
        cache: the cache's folder; None uses this user's own in the temporary folder.

    Raises:
        StorageError: what `fill` raises; or the cache cannot be written, or belongs to another user.
    """
    root = _cache_root(cache)
    folder, seal = root / name, root / f".{name}.sealed"
    if _is_sealed(folder, seal):
        return folder
    with hold(root / f".{name}.lock"):
        if _is_sealed(folder, seal):
            return folder
        with storage_errors(folder):
            remove(folder)  # a copy that was changed
            with filled_folder(folder) as filling:
                fill(filling)
        atomic_write_text(seal, json.dumps(_state(folder)))
    return folder


def _is_sealed(folder: Path, seal: Path) -> bool:
    """Whether the folder is unchanged since it was verified: same names, sizes and times."""
    try:
        return parse_object(read_plain(seal)) == _state(folder)
    except (OSError, ValueError):
        return False


def _state(folder: Path) -> dict[str, list[int]]:
    """Size and time of every file and link."""
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    facts = ((path.relative_to(folder).as_posix(), path.lstat()) for path in sorted(files))
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in facts}


def _cache_root(cache: Path | None) -> Path:
    if cache is None:
        return own_temporary_folder("vl3-cache")
    require_own(cache)
    return cache
