r"""The one interface of curation: a scorer takes a batch and returns columns, a filter is data that judges a column.

A batch is a dict of numpy columns of one length, as Ray Data and Arrow have them:

    {"sha256": ["9f..", "07.."], "bytes": [b"\xff\xd8..", b"junk"], "text": ["a cat", ""]}   in
    {"aesthetic": [5.1, nan], "aesthetic_error": [None, "not an image"]}                       out

Everything that is computed of an image is a scorer: an aesthetic score, CLIP features, a caption. So each result is
stored under the digest of the image and the version of the scorer, and a changed threshold runs no model again.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from vl3.errors import ConfigError

Batch: TypeAlias = dict[str, np.ndarray]
"""Columns of one length. `sha256` names the image, `bytes` is its file, `text` its text from the source."""

ERROR_SUFFIX = "_error"


@runtime_checkable
class Scorer(Protocol):
    """From a batch to one value a row for each name of `outputs`.

    A row that failed has NaN (numbers) or None (everything else) in all of them, and its reason in `<name>_error`;
    that column is None where nothing failed, and may be missing if nothing did. A scorer raises only if no batch
    could succeed: its weights are missing, an endpoint refuses its key, a spend limit is reached.
    """

    @property
    def name(self) -> str:
        """Its name in recipes, reports and columns."""

    @property
    def version(self) -> str:
        """Digest of weights and settings: part of the key under which its results are stored."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Columns that it makes."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of the rows, in their order, and `<name>_error`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """A threshold as data: rows whose value in `column` is outside are dropped, and say so."""

    name: str
    """Its name in the funnel."""
    column: str
    """The column that it judges."""
    minimum: float | None = None
    """Smallest value that is kept."""
    maximum: float | None = None
    """Largest value that is kept."""
    allowed: tuple[str, ...] = field(default=())
    """Values that are kept, of a column of words."""
    source: str
    """Where the threshold is from: a section of the paper, or a reference."""

    def __post_init__(self) -> None:
        if (self.minimum is None and self.maximum is None) != bool(self.allowed):
            raise ConfigError(
                f"filter {self.name!r} has minimum={self.minimum}, maximum={self.maximum}, allowed={self.allowed}: it "
                "would keep all, or judge twice. Set minimum, maximum or both for numbers, or allowed for words."
            )
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ConfigError(
                f"filter {self.name!r} keeps nothing: minimum={self.minimum} exceeds maximum={self.maximum}. Swap them."
            )

    def keeps(self, value: Any) -> bool:
        """Whether a value passes. None and NaN never do: what could not be scored is not kept by accident."""
        if value is None:
            return False
        if self.allowed:
            return str(value) in self.allowed
        number = float(value)
        if math.isnan(number):
            return False
        return (self.minimum is None or number >= self.minimum) and (self.maximum is None or number <= self.maximum)

    @property
    def rule(self) -> str:
        """The threshold in words: `>= 4.5`, `0.33 to 3`, `one of short, long`."""
        if self.allowed:
            return f"one of {', '.join(self.allowed)}"
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:.4g} to {self.maximum:.4g}"
        return f">= {self.minimum:.4g}" if self.minimum is not None else f"<= {self.maximum:.4g}"


def version_digest(parts: Mapping[str, Any]) -> str:
    """The version of a scorer from what decides its results: digests of weights, settings, a number of its code.

    Args:
        parts: JSON-ready values.

    Returns:
        16 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
