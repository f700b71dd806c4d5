"""The champion that a run's last checkpoint is compared with, as a model that can be evaluated beside it.

A champion's scores at its promotion were measured on the data of then. So the evaluation asks it the run's own
questions, too, and compares the two question by question; nothing is refused for having been measured on other data.
"""

from dataclasses import dataclass
from pathlib import Path

from vl3.config.tracking import is_server
from vl3.steps.chain import MODEL
from vl3.steps.registry import open_registry
from vl3.steps.request import Request
from vl3.store.artifacts import find
from vl3.store.reference import Reference
from vl3.system.uris import sqlite_path
from vl3.tracking.client import patiently
from vl3.tracking.versions import VersionRow


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundChampion:
    """The champion, and its checkpoint if that is still there."""

    version: int
    """Its version in the registry."""
    sha256: str
    """Digest of its checkpoint; empty if it was registered without."""
    checkpoint: Reference | None
    """None if it cannot be evaluated."""
    why: str
    """Why it cannot."""


def champion_row(request: Request) -> VersionRow | None:
    """The version that the run's last checkpoint is compared with; None if there is none, or nothing was trained.

    Raises:
        ClusterError: the tracking store does not answer.
    """
    checkpoint = request.inputs.get("checkpoint")
    if checkpoint is None or checkpoint.kind == MODEL:
        return None
    registry = open_registry(request)
    if registry.tracking_uri.startswith("sqlite:") and not _exists(registry.tracking_uri):
        return None  # looking must not make a store
    return patiently(lambda: registry.to_compare_with(checkpoint.sha256))


def champion_digest(request: Request) -> str:
    """Digest of the champion's checkpoint for the key of an evaluation; empty if there is none."""
    row = champion_row(request)
    return "" if row is None else _digest(row)


def find_champion(request: Request) -> FoundChampion | None:
    """The champion with its checkpoint.

    Raises:
        ClusterError: the tracking store does not answer.
        StorageError: the store of its checkpoint does not answer.
    """
    row = champion_row(request)
    if row is None:
        return None
    sha256, found = _digest(row), find(row.source)
    why = ""
    if found is None:
        why = f"its checkpoint at {row.source} is gone. Roll back to a version that has one, or delete the alias"
    elif found.sha256 != sha256:
        why = f"at {row.source} is another checkpoint ({found.sha256[:12]}) than it was registered with ({sha256[:12]})"
    return FoundChampion(version=row.version, sha256=sha256, checkpoint=None if why else found, why=why)


def _digest(row: VersionRow) -> str:
    return str(row.made_from.get("checkpoint_sha256") or "")


def _exists(tracking_uri: str) -> bool:
    assert not is_server(tracking_uri)
    return Path(sqlite_path(tracking_uri)).is_file()
