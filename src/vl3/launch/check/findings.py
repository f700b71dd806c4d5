"""What a check found: problems by family, notes, and one row per stage for the table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from vl3.errors import ClusterError, ConfigError, DataError, StorageError, Vl3Error

_GIB = Decimal(1024**3)


@dataclass(kw_only=True, slots=True)
class Findings:
    """Collects results while the checks run. A problem that several stages share is listed once."""

    problems: list[Vl3Error] = field(default_factory=list)
    """What prevents the run; the family says who has to act."""
    notes: list[str] = field(default_factory=list)
    """What does not prevent it: what could not be checked, what may take longer."""

    def add(self, problem: Vl3Error) -> None:
        """Add a problem, unless it is listed already."""
        if not any(type(known) is type(problem) and str(known) == str(problem) for known in self.problems):
            self.problems.append(problem)

    def note(self, text: str) -> None:
        """Add a note, unless it is listed already."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementRow:
    """A stage, or a kind of step pod, in the table of `vl3 cluster check`; a step pod has no pool, queue and quota."""

    stage: str
    pool: str
    pods: str
    """Pods and what each takes, `2 x 8 GPUs`."""
    queue: str
    quota: str
    """Requested, and the maximum that the queue can have, `16 of 32 GPUs`; `?` if not known."""
    nodes: str
    """Number of nodes in the pool, `4`, or of those that hold such a step pod; `?` if not known."""


def placement_field(stages: Iterable[str], name: str | None = None) -> str:
    """The field of a placement in the recipe: `placements.video.queue`, `placements.{alignment,video}`."""
    names = list(stages)
    inner = names[0] if len(names) == 1 else "{" + ",".join(names) + "}"
    return f"placements.{inner}" + (f".{name}" if name else "")


def amount(resource: str, value: Decimal) -> str:
    """An amount of a resource for messages: `16 nvidia.com/gpu`, `900 GiB of memory`, `0.5 cores`."""
    if resource == "memory":
        return f"{_plain(value / _GIB)} GiB of memory"
    if resource.startswith("hugepages-"):
        return f"{_plain(value / _GIB)} GiB of {resource}"
    if resource == "cpu":
        return f"{_plain(value)} cores"
    return f"{_plain(value)} {resource}"


def _plain(value: Decimal) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def listed(names: Iterable[str]) -> str:
    """Names for a message, or `none`."""
    return ", ".join(sorted(names)) or "none"


def joined(parts: Sequence[str]) -> str:
    """Parts of a sentence: `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


_ORDER = (ConfigError, DataError, StorageError, ClusterError)
"""Families of problems; those that a retry cannot solve come first."""


def combined(problems: Sequence[Vl3Error], headline: str) -> Vl3Error:
    """Problems as one error: a single one unchanged, several as a numbered list under `<number> <headline>.`

    With several families, the first in the order configuration, data, storage, platform is taken, because a retry
    solves only problems of the platform: [ClusterError("a"), ConfigError("b")] with the headline `problems` gives

        ConfigError: 2 problems. Fix all of them.
          1. ClusterError: a
          2. ConfigError: b
    """
    if len(problems) == 1:
        return problems[0]
    families = [next(family for family in _ORDER if isinstance(problem, family)) for problem in problems]
    lines = [
        f"  {number}. {family.__name__}: {problem}"
        for number, (family, problem) in enumerate(zip(families, problems, strict=True), start=1)
    ]
    return min(families, key=_ORDER.index)("\n".join([f"{len(problems)} {headline}. Fix all of them.", *lines]))
