"""A reference: the small thing that travels between steps in place of a dataset or a checkpoint."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vl3.errors import StorageError
from vl3.system.files import atomic_write_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Where an artifact lies and what it must be; whoever reads it verifies it."""

    uri: str
    """Folder of the artifact (file:// or s3://)."""
    sha256: str
    """SHA-256 (hex) of the bytes of its manifest.json, which holds the digest of every file."""
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
            StorageError: a field is missing or unknown.
        """
        expected = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != expected:
            found = ", ".join(sorted(data)) if isinstance(data, dict) else type(data).__name__
            raise StorageError(
                f"a reference needs the fields {', '.join(sorted(expected))} and has {found}. "
                "Run the step that makes it again."
            )
        return cls(**data)


def read_reference(path: Path) -> Reference:
    """Read a reference file.

    Raises:
        StorageError: the file is missing, is not JSON or lacks a field.
    """
    try:
        return Reference.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise StorageError(f"{path}: the reference file is missing. Run the step that makes it again.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StorageError(f"{path}: the reference is not JSON ({error}). Run the step that makes it again.") from error
    except StorageError as error:
        raise StorageError(f"{path}: {error}") from error


def write_reference(reference: Reference, path: Path) -> None:
    """Write a reference file atomically."""
    atomic_write_text(path, json.dumps(reference.to_dict(), indent=1, sort_keys=True) + "\n")
