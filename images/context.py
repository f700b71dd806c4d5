"""The build context of an image as one stream: the same bytes for the same files, on any machine at any time.

Docker's classic builder and BuildKit both read a context as a tar from standard input. Times, owners and order are
fixed here, so that a layer's digest depends only on its files.
"""

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

_TIME = 315_532_800
"""1980-01-01, the earliest time in zip files."""


def write_context(stream: IO[bytes], parts: Mapping[str, Path]) -> None:
    """Write a context.

    Args:
        stream: where the tar goes, for example the standard input of `docker build -`.
        parts: files and folders on this machine by their name in the context.
    """
    with tarfile.open(fileobj=stream, mode="w|", bufsize=1 << 20, format=tarfile.GNU_FORMAT) as archive:
        for name, path in parts.items():
            for inner in _walk(path):
                _add(archive, inner, name if inner == path else f"{name}/{inner.relative_to(path).as_posix()}")


def _walk(path: Path) -> Iterator[Path]:
    """A path and everything below it, parents first, in the order of the names."""
    yield path
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            yield from _walk(child)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    facts = path.lstat()
    member.mtime = _TIME
    executable = bool(facts.st_mode & 0o100)
    if path.is_symlink():
        member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
        archive.addfile(member)
    elif path.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
    else:
        member.mode, member.size = 0o755 if executable else 0o644, facts.st_size
        with path.open("rb") as file:
            archive.addfile(member, file)
