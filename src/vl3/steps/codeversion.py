"""The version of the code that matters to a step: a digest of its source files and of the libraries it leans on."""

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from vl3.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]


def code_version(
    patterns: Iterable[str], *, libraries: Iterable[str] = (), exclude: Iterable[str] = (), root: Path = _PACKAGE
) -> str:
    """Digest of source files and library versions.

    Args:
        patterns: globs below the package, such as `data/*.py`; each has to match something.
        libraries: distributions whose version may change the result.
        exclude: globs of files that have no part in the result although a pattern matches them.
        root: folder of the package.

    Returns:
        SHA-256 (hex).

    Raises:
        ConfigError: a pattern matches nothing, so a change would go unnoticed.
    """
    left_out = {path for pattern in exclude for path in root.glob(pattern)}
    files: set[Path] = set()
    for pattern in patterns:
        found = {path for path in root.glob(pattern) if path.is_file() and path.suffix != ".pyc"}
        if not found:
            raise ConfigError(f"code pattern {pattern!r} matches no file under {root}. Correct the step's `code`.")
        files |= found - left_out
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for library in sorted(libraries):
        digest.update(f"{library}=={version(library)}\0".encode())
    return digest.hexdigest()
