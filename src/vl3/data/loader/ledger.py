"""The ledger: samples that were left out because they cannot be used, each named once, up to a limit.

It is part of a checkpoint: a resumed stage leaves out the same samples without trying them again, and goes on counting.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vl3.data.plan.stage_plan import PlannedSample
from vl3.errors import DataError

_TYPES = {"dataset": int, "row": int, "sample_id": str, "where": str, "step": int, "reason": str}


@dataclass(frozen=True, kw_only=True, slots=True)
class BadSample:
    """A sample that was left out, and why."""

    dataset: int
    """Which of the plan's datasets."""
    row: int
    """Row of the dataset's index."""
    sample_id: str
    where: str
    """File and line of its annotation."""
    step: int
    """The step that it was first missing from."""
    reason: str

    @property
    def key(self) -> tuple[int, int]:
        """Which sample it is; ids are unique within a dataset only."""
        return self.dataset, self.row

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "BadSample":
        """An entry from plain data.

        Raises:
            ValueError: a field is missing, unknown or of another type.
        """
        if not isinstance(data, dict) or {name: type(value) for name, value in data.items()} != _TYPES:
            raise ValueError(f"{data!s:.200} is no entry of a ledger")
        return cls(**data)


class Ledger:
    """The bad samples that this rank knows; the thread of the loader adds, the trainer's thread reads and merges."""

    def __init__(self, *, fraction: float, usable_samples: int, former: Iterable[BadSample] = ()) -> None:
        """Begin a ledger.

        Args:
            fraction: data.max_bad_fraction.
            usable_samples: samples of which the fraction may be bad.
            former: entries of the checkpoint from which the stage resumes.
        """
        self._fraction, self._limit = fraction, int(fraction * usable_samples)
        self._bad = {bad.key: bad for bad in former}
        self._lock = threading.Lock()

    @property
    def bad_samples(self) -> list[BadSample]:
        """All entries, in the order of their steps."""
        with self._lock:
            return sorted(self._bad.values(), key=lambda bad: (bad.step, bad.key))

    def has(self, sample: PlannedSample) -> bool:
        """Whether a sample is known to be bad."""
        return (sample.dataset, sample.row) in self._bad

    def add(self, bad: BadSample) -> None:
        """Enter a sample that this rank found, unless it is known.

        Raises:
            DataError: it is one more than the limit.
        """
        with self._lock:
            if self._bad.setdefault(bad.key, bad) is bad and len(self._bad) > self._limit:
                raise DataError(self._refusal(bad, len(self._bad)))

    def merge(self, found: Iterable[BadSample]) -> list[BadSample]:
        """Enter the samples that all ranks know, and return each once; every rank gets the same list.

        What this rank has found meanwhile is not counted, so that all ranks raise or none.

        Raises:
            DataError: they are more than the limit.
        """
        merged: dict[tuple[int, int], BadSample] = {}
        for bad in found:
            if merged.setdefault(bad.key, bad) is bad and len(merged) > self._limit:
                raise DataError(self._refusal(bad, len(merged)))
        with self._lock:
            for bad in merged.values():
                self._bad.setdefault(bad.key, bad)
        return list(merged.values())

    def _refusal(self, bad: BadSample, count: int) -> str:
        return (
            f"sample {bad.sample_id!r} ({bad.where}) cannot be used in step {bad.step}: {bad.reason} It is bad sample "
            f"number {count}, and data.max_bad_fraction={self._fraction} allows {self._limit}. Repair the data "
            "and build the dataset again, or raise the limit."
        )
