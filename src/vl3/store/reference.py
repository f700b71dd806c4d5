"""A reference: the small file that steps pass on instead of a dataset or a checkpoint."""

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vl3.errors import StorageError
from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_text, read_plain

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Where an artifact is stored and its digest, which every reader verifies."""

    uri: str
    """Folder of the artifact (file:// or s3://)."""
    sha256: str
    """Its digest (SHA-256, hex): that of its manifest.json, which holds the digest of every file."""
    kind: str
    """What it is: dataset, checkpoint, evaluation, ..."""
    created_by: dict[str, str]
    """Who made it: step, key, run."""

    def to_dict(self) -> dict[str, Any]:
        """The reference as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Reference":
        """Build a reference from plain data.

        Raises:
            StorageError: a field is missing, unknown or not valid.
        """
        expected = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != expected:
            found = ", ".join(sorted(data)) if isinstance(data, dict) else type(data).__name__
            raise StorageError(
                f"a reference needs the fields {', '.join(sorted(expected))} and has {found}. "
                "Run the step that makes it again."
            )
        texts = [data["uri"], data["kind"], *_texts(data["created_by"])]
        if not all(isinstance(text, str) for text in texts) or not _is_sha256(data["sha256"]):
            raise StorageError(
                f"the reference to {str(data['uri'])[:200]!r} is not valid (sha256 {str(data['sha256'])[:80]!r}). "
                "Run the step that makes it again."
            )
        return cls(**data)


def _texts(created_by: Any) -> list[Any]:
    """The values of created_by, which must be text; [None] if it is not an object."""
    return list(created_by.values()) if isinstance(created_by, dict) else [None]


def _is_sha256(value: Any) -> bool:
    """Whether it is a digest; it becomes the name of a local copy, so it must not be a path."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def read_reference(path: Path) -> Reference:
    """Read a reference file.

    Raises:
        StorageError: the file is missing, is not JSON or lacks a field.
    """
    try:
        return Reference.from_dict(parse_object(read_plain(path)))
    except FileNotFoundError as error:
        raise StorageError(f"{path}: the reference file is missing. Run the step that makes it again.") from error
    except ValueError as error:
        raise StorageError(f"{path}: not a reference ({error}). Run the step that makes it again.") from error
    except StorageError as error:
        raise StorageError(f"{path}: {error}") from error


def write_reference(reference: Reference, path: Path) -> None:
    """Write a reference file atomically."""
    atomic_write_text(path, json.dumps(reference.to_dict(), indent=1, sort_keys=True) + "\n")
