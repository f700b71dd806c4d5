"""The version of the code that matters to a result: a digest of its source files and of the libraries it leans on."""

import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vl3.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]


def code_version(
    patterns: Iterable[str],
    *,
    libraries: Iterable[str] = (),
    pins: Mapping[str, str] | None = None,
    exclude: Iterable[str] = (),
    root: Path = _PACKAGE,
) -> str:
    """Digest of source files and library versions.

    Args:
        patterns: globs below the package, such as `data/*.py`; each has to match something.
        libraries: distributions whose version may change the result.
        pins: versions of the libraries where the result is made, if that is elsewhere; they go before what is
            installed here.
        exclude: globs of files that have no part in the result although a pattern matches them.
        root: folder of the package.

    Returns:
        SHA-256 (hex).

    Raises:
        ConfigError: a pattern matches nothing, so a change would go unnoticed, or a library's version is unknown.
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
        digest.update(f"{library}=={_library_version(library, pins or {})}\0".encode())
    return digest.hexdigest()


def read_pins(path: Path) -> dict[str, str]:
    """Versions by distribution, from a requirements file of `name==version` lines (hashes and markers are passed over).

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: the pinned requirements of the trainer image cannot be read ({error}). Correct "
            "VL3_TRAINER_REQUIREMENTS, which names this file."
        ) from error
    pins = {}
    for line in lines:
        name, equals, pinned = line.partition("#")[0].partition(";")[0].partition("==")
        if equals and pinned.split():
            pins[_normal_name(name.partition("[")[0])] = pinned.split()[0]
    return pins


def _library_version(library: str, pins: Mapping[str, str]) -> str:
    pinned = pins.get(_normal_name(library))
    if pinned is not None:
        return pinned
    try:
        return version(library)
    except PackageNotFoundError as error:
        raise ConfigError(
            f"the version of {library} is part of this step's key, and {library} is not installed here. Where the "
            "work runs in another image, let VL3_TRAINER_REQUIREMENTS name that image's pinned requirements "
            f"(`{library}==VERSION`); otherwise install {library}."
        ) from error


def _normal_name(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")
