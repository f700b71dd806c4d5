"""The evidence for a promotion: what the evaluation measured of the candidate, and what else was verified."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vl3.config.gates import HELDOUT
from vl3.errors import GateError

_SHOWN = ("score", "low", "high", "items", "digest")
"""What a tag keeps of a score; the whole evidence is an artifact of the run."""
_DIGEST_CHARACTERS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ChampionEvidence:
    """The current champion."""

    version: int
    """Its version in the registry."""
    checkpoint_sha256: str
    """Digest of its checkpoint; empty if it was registered without."""
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Its scores at its promotion, by benchmark or BENCHMARK/PART: for people. Gates compare it as it was measured
    beside the candidate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything that the gates check."""

    document: Mapping[str, Any]
    """The evaluation's evidence.json (vl3.evaluation.evidence)."""
    model: str
    """Name of the candidate in it."""
    expected: Mapping[str, Mapping[str, int]]
    """Items that must have been asked, by benchmark and part; the part is empty for a benchmark as a whole."""
    champion: ChampionEvidence | None
    """The current champion; None if there is none yet."""
    checkpoint_sha256: str
    """Digest of the candidate's checkpoint."""
    dataset_digest: str
    """Digest of the dataset of the run."""
    validation_passed: bool | None
    """Whether data validation passed; None if unknown."""
    checkpoint_verified: bool | None
    """Whether every file of the checkpoint was hashed and matched its manifest; None if unknown."""

    @property
    def measured(self) -> Mapping[str, Any]:
        """What was measured of the candidate, by benchmark; empty if nothing was."""
        return _table(_table(_table(self.document, "models"), self.model), "benchmarks")

    @property
    def submitted(self) -> frozenset[str]:
        """Benchmarks that were asked, but whose answers only their own servers can score: no gate can judge them."""
        return frozenset(name for name in self.measured if _table(self.measured, name).get("submitted") is True)

    @property
    def groups(self) -> Mapping[str, Any]:
        """Means of groups of benchmarks."""
        return _table(_table(_table(self.document, "models"), self.model), "groups")

    @property
    def made_of(self) -> Mapping[str, Any]:
        """What was evaluated on what."""
        return _table(self.document, "made_of")

    @property
    def partial(self) -> Mapping[str, Any]:
        """What the copy of a benchmark lacked, of those that were not whole."""
        return _table(self.made_of, "partial")

    @property
    def evaluated_champion(self) -> Mapping[str, Any]:
        """The champion that the evaluation compared with; empty if there was none."""
        return _table(self.document, "champion")

    def pair(self, first: str) -> Mapping[str, Any] | None:
        """The comparison of a model with the candidate; None if there is none."""
        pairs = self.document.get("pairs")
        for one in pairs if isinstance(pairs, Sequence) else ():
            if isinstance(one, Mapping) and (one.get("first"), one.get("second")) == (first, self.model):
                return one
        return None

    @property
    def mean_accuracy(self) -> float | None:
        """The held-out score; if nothing was held out, the mean over the benchmarks. None if one has no score."""
        measured = self.measured
        names = [HELDOUT] if HELDOUT in measured else list(measured)
        scores = [number(_table(measured, name).get("score")) for name in names]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if known and len(known) == len(scores) else None

    def scores(self) -> dict[str, dict[str, Any]]:
        """The candidate's scores in short, for a tag: of each benchmark, and of each category that was held out.

        The parts of other benchmarks are hundreds, too many for a tag; they are in the evidence.
        """
        found = {}
        for name, measure in self.measured.items():
            own_parts = _table(measure, "parts") if name == HELDOUT else {}
            parts = {f"{name}/{part}": own for part, own in own_parts.items()}
            for label, one in {name: measure, **parts}.items():
                kept = {key: one.get(key) for key in _SHOWN}
                found[label] = kept | {"digest": str(kept["digest"])[:_DIGEST_CHARACTERS]}
        return found


def require_model(document: Mapping[str, Any], model: str) -> None:
    """Raise GateError unless the evidence has this model: then no gate could say anything."""
    models = _table(document, "models")
    if model not in models:
        raise GateError(
            f"the evaluation does not include the model {model!r} (it has {', '.join(map(str, models)) or 'none'}), so "
            "there is no evidence to promote it. Evaluate it and try again."
        )


def number(value: Any) -> float | None:
    """A finite number of a document that something else may have written; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _table(data: Any, name: str) -> Mapping[str, Any]:
    """A table within a document; empty if it is missing or something else."""
    found = data.get(name) if isinstance(data, Mapping) else None
    return found if isinstance(found, Mapping) else {}
