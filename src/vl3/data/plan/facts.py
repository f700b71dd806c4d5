"""What a plan says about itself: plan.json, which is written last and without which the folder is no plan.

No numpy: the launcher of a stage reads it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vl3.config.codec import digest
from vl3.errors import DataError
from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_json, read_plain

PLAN_NAME = "plan.json"
_FORMAT = 2
SAMPLES, PACKS, DRAWN = "samples", "packs", "drawn"
"""Names of the plan's arrays: SAMPLE in the order of the packs; PACK in the order of the steps; and the samples of each
kind drawn before each step, uint64, one after the other: steps + 1 times as many numbers as there are kinds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedDataset:
    """A dataset that a plan draws from."""

    index_sha256: str
    """SHA-256 (hex) of its index."""
    shards: tuple[str, ...]
    """Names of its shards, in the order of their numbers in the plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayFacts:
    """What a reader has to know of an array before it trusts its file."""

    items: int
    """Length of the array."""
    header_bytes: int
    """Length of what stands before the first item."""
    header_sha256: str
    """SHA-256 (hex) of that."""
    sha256: tuple[str, ...]
    """SHA-256 (hex) of each block, in order."""

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON data."""
        return asdict(self) | {"sha256": list(self.sha256)}

    @classmethod
    def from_json(cls, data: Any) -> "ArrayFacts":
        """The inverse of `to_json`.

        Raises:
            ValueError: it is something else.
        """
        facts = cls(**data | {"sha256": tuple(data["sha256"])})
        if any(type(number) is not int or not 0 <= number < 2**50 for number in (facts.items, facts.header_bytes)):
            raise ValueError("an array has a length that no file has")
        return facts


@dataclass(frozen=True, kw_only=True, slots=True)
class KindFacts:
    """One kind of the mixture in a plan."""

    key: str
    """`DATASET` or `[DATASET:]CATEGORY[:SOURCE]`."""
    asked: float
    """Samples that the mixture asks for: its amount in the stage's epochs, or its part of the stage's samples."""
    share: float
    """Share of the draws that it should have, after caps and what is missing; the shares sum to 1."""
    available: int
    """Different samples that may be drawn; 0 if they are missing."""
    drawn: int
    """Samples of the kind in the plan's steps."""
    categories: tuple[str, ...]
    """Categories of its samples."""

    @property
    def epochs(self) -> float:
        """How often each sample of the kind is seen."""
        return self.drawn / self.available if self.available else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FillFacts:
    """How full the rows are, as means over all rows."""

    length: float
    """Tokens of a row, of max_length_tokens."""
    visual: float
    """Vision tokens of a row, of max_row_visual_tokens."""
    binding: float
    """The fuller of the two: what keeps another sample out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BalanceFacts:
    """How evenly a step's cost is dealt: the costliest rank over the mean of the ranks, less 1."""

    ranks: int
    """Simulated ranks."""
    mean: float
    """Mean over the simulated steps: the share of time that ranks wait for each other."""
    worst: float
    """Largest of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanFacts:
    """Everything in plan.json."""

    asked: dict[str, Any]
    """What the plan was made for: vl3.data.plan.planner.PlanRequest as plain data."""
    datasets: tuple[PlannedDataset, ...]
    """What it draws from, by the numbers in its samples."""
    usable_samples: int
    """Usable training samples of the datasets, whether the mixture draws them or not."""
    steps: int
    """Optimizer steps."""
    packs_per_step: int
    """Rows of a step over all ranks."""
    samples: int
    """Samples of all steps."""
    kinds: tuple[KindFacts, ...]
    """The kinds of the mixture, in its order."""
    notes: tuple[str, ...]
    """One sentence for each thing that is asked for and that the datasets do not have."""
    fill: FillFacts
    """How full the rows are."""
    balance: tuple[BalanceFacts, ...]
    """How even the ranks are at some world sizes, under the cost model of VideoLLaMA3-2B."""
    arrays: Mapping[str, ArrayFacts]
    """Length and digests of each array by its name."""

    @property
    def samples_per_step(self) -> float:
        """Samples of a step, as a mean."""
        return self.samples / self.steps

    def summary(self) -> dict[str, Any]:
        """What people want to know, as JSON data: everything but digests and names of shards."""
        return {
            "steps": self.steps,
            "packs_per_step": self.packs_per_step,
            "samples": self.samples,
            "samples_per_step": self.samples_per_step,
            "kinds": [asdict(kind) | {"epochs": kind.epochs} for kind in self.kinds],
            "notes": list(self.notes),
            "fill": asdict(self.fill),
            "balance": [asdict(one) for one in self.balance],
        }

    def write(self, folder: Path) -> None:
        """Write plan.json.

        Raises:
            StorageError: it cannot be written.
        """
        body = asdict(self) | {"arrays": {name: facts.to_json() for name, facts in self.arrays.items()}}
        atomic_write_json(folder / PLAN_NAME, {"format": _FORMAT, "sha256": digest(body), **body})


def read_facts(path: Path) -> PlanFacts:
    """Read a plan.json.

    Raises:
        DataError: it is missing, was written by another version, or is not the one that was written.
    """
    try:
        body = parse_object(read_plain(path))
    except FileNotFoundError as error:
        raise DataError(
            f"{path.parent} is not a complete plan: {PLAN_NAME}, which is written last, is missing. Plan the stage "
            "again."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Plan the stage again.") from error
    found, expected = body.pop("format", None), body.pop("sha256", None)
    if found != _FORMAT:
        raise DataError(f"{path} has format {found!r:.50}; this version of vl3 reads {_FORMAT}. Plan the stage again.")
    try:
        if digest(body) != expected:
            raise ValueError("its own digest does not match")
        return _facts(body)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}). Plan the stage again.") from error


def _facts(body: dict[str, Any]) -> PlanFacts:
    facts = PlanFacts(
        **body
        | {
            "datasets": tuple(
                PlannedDataset(index_sha256=one["index_sha256"], shards=tuple(one["shards"]))
                for one in body["datasets"]
            ),
            "kinds": tuple(KindFacts(**one | {"categories": tuple(one["categories"])}) for one in body["kinds"]),
            "notes": tuple(body["notes"]),
            "fill": FillFacts(**body["fill"]),
            "balance": tuple(BalanceFacts(**one) for one in body["balance"]),
            "arrays": {name: ArrayFacts.from_json(one) for name, one in body["arrays"].items()},
        }
    )
    for name in ("steps", "packs_per_step", "samples"):
        value = getattr(facts, name)
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r:.50}")
    return facts
