"""Content hashes, so that nothing is built twice from the same inputs."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

LENGTH = 16


def hash_of(*parts: str | Path | Iterable[str]) -> str:
    """Hash of texts and of the names and bytes of files and folders, in the given order.

    Each part is preceded by its length, so hash_of("ab", "c") differs from hash_of("a", "bc").
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            _add_path(digest, part)
        else:
            _add_text(digest, part if isinstance(part, str) else "\n".join(part))
    return digest.hexdigest()[:LENGTH]


def _add_path(digest: "hashlib._Hash", path: Path) -> None:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        _add_text(digest, file.relative_to(path.parent).as_posix())
        data = file.read_bytes()
        digest.update(f"{len(data)}:".encode() + data)


def _add_text(digest: "hashlib._Hash", text: str) -> None:
    data = text.encode()
    digest.update(f"{len(data)}:".encode() + data)
