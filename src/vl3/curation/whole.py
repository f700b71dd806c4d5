"""All images of a round as one sequence, read part by part, for the steps that compare them with each other.

Positions count over all parts: with parts of 100 and 50 images, position 120 is row 20 of the second. What is dropped
is gathered on disk by part, so memory does not grow with the number of images.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vl3.curation.places import Places
from vl3.curation.rounds import DROPPED, Round
from vl3.curation.scores import ScorerKey, ScoreStore
from vl3.curation.source import InputPart
from vl3.validation.spill import Spill

DROP = np.dtype([("position", "<u8"), ("other", "<u8"), ("value", "<f4")])
"""An image that is dropped, the one because of which it is, and how near they are."""
NO_OTHER = np.uint64(2**64 - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class LivePart:
    """The images of a part that are still kept."""

    part: InputPart
    positions_N: np.ndarray
    """uint64."""
    values_N: np.ndarray
    """The column that was asked for."""


class Whole:
    """The images that are kept at the end of a round, before its closing step."""

    def __init__(
        self,
        parts: Sequence[InputPart],
        round_: Round,
        keys: Mapping[str, ScorerKey],
        places: Places,
        scores: ScoreStore,
    ) -> None:
        self._parts, self._round, self._keys, self.places, self._scores = parts, round_, keys, places, scores
        lengths = [places.require_listing(part.name).num_rows for part in parts]
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)

    @property
    def closed_key(self) -> str:
        """Key of the states after the closing step."""
        return self._round.closed_key

    def live(self, column: str) -> Iterator[LivePart]:
        """The kept images part by part, with a column: `sha256` or one of a scorer."""
        for number, part in enumerate(self._parts):
            listing = self.places.require_listing(part.name)
            rows = np.flatnonzero(self.places.require_state(self._round.key, part.name).is_kept)
            digests = listing["sha256"].to_numpy(zero_copy_only=False)[rows]
            if column != "sha256":
                key = next(one for one in self._keys.values() if column in one.outputs)
                values = self._scores.of_part(key, part.name).of(list(digests))[column]
                self._scores.forget()
            else:
                values = digests
            yield LivePart(part=part, positions_N=rows.astype(np.uint64) + self.offsets[number], values_N=values)

    @contextmanager
    def dropping(self, step: str, words: str) -> Iterator["Drops"]:
        """Collect what is dropped; at the end of the block the states with it are written.

        Args:
            step: name of the step.
            words: the rule, with {other} and {value}.
        """
        with (
            tempfile.TemporaryDirectory(prefix="vl3-drops-") as folder,
            Spill(Path(folder, "drops"), DROP, max(1, len(self._parts))) as spill,
        ):
            yield Drops(spill, self.offsets)
            for number, part in enumerate(self._parts):
                self._write(part, number, spill.read(number), step, words)

    def _write(self, part: InputPart, number: int, found: np.ndarray, step: str, words: str) -> None:
        verdicts = self.places.require_state(self._round.key, part.name)
        order = np.lexsort((found["other"], found["position"]))  # of several reasons the earliest image
        _, first = np.unique(found["position"][order], return_index=True)
        found = found[order][first]
        rows = (found["position"] - self.offsets[number]).astype(np.int64)
        values = [f"{value:.6g}" if "{value}" in words else "" for value in found["value"]]
        rules = [
            words.format(other=self._name(other), value=value)
            for other, value in zip(found["other"], values, strict=True)
        ]
        verdicts.end(rows, DROPPED, step, values, rules)
        self.places.write_state(self._round.closed_key, part.name, verdicts)

    def _name(self, position: np.uint64) -> str:
        if position == NO_OTHER:
            return ""
        number = int(np.searchsorted(self.offsets, position, side="right")) - 1
        return f"{self._parts[number].name} row {int(position - self.offsets[number])}"


class Drops:
    """What a step drops, on disk by part."""

    def __init__(self, spill: Spill, offsets: np.ndarray) -> None:
        self._spill, self._offsets = spill, offsets

    def add(self, positions_N: np.ndarray, others_N: np.ndarray, values_N: np.ndarray) -> None:
        """Drop some images; of one that is dropped twice the reason with the earliest other image counts."""
        records = np.zeros(len(positions_N), dtype=DROP)
        records["position"], records["other"], records["value"] = positions_N, others_N, values_N
        buckets = np.searchsorted(self._offsets, records["position"], side="right") - 1
        self._spill.add(records, buckets)
