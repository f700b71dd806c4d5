"""What a check found: problems by family, remarks, and one line a stage for the table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from vl3.errors import ClusterError, ConfigError, DataError, StorageError, Vl3Error

_GIB = Decimal(1024**3)


@dataclass(kw_only=True, slots=True)
class Findings:
    """Collects while the checks run. The same problem of several stages is said once."""

    problems: list[Vl3Error] = field(default_factory=list)
    """What stops the run, with the family of who has to act."""
    notes: list[str] = field(default_factory=list)
    """What does not stop it: what could not be checked, what may take longer."""

    def add(self, problem: Vl3Error) -> None:
        """Keep a problem, once."""
        if not any(type(known) is type(problem) and str(known) == str(problem) for known in self.problems):
            self.problems.append(problem)

    def note(self, text: str) -> None:
        """Keep a remark, once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementRow:
    """A stage in the table of `vl3 cluster check`."""

    stage: str
    pool: str
    pods: str
    """Pods and what each takes, `2 x 8 GPUs`."""
    queue: str
    quota: str
    """What is asked and what the queue can have at most, `16 of 32 GPUs`; `?` where it cannot be said."""
    nodes: str
    """Nodes of the pool that are there, `4`; `?` where it cannot be said."""


def placement_field(stages: Iterable[str], name: str | None = None) -> str:
    """Where a placement stands in the recipe: `placements.video.queue`, `placements.{alignment,video}`."""
    names = list(stages)
    inner = names[0] if len(names) == 1 else "{" + ",".join(names) + "}"
    return f"placements.{inner}" + (f".{name}" if name else "")


def amount(resource: str, value: Decimal) -> str:
    """An amount of a resource as a reader takes it in: `16 nvidia.com/gpu`, `900 GiB of memory`, `0.5 cores`."""
    if resource == "memory":
        return f"{_plain(value / _GIB)} GiB of memory"
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
"""Families of what a check finds, the one that a retry cannot cure first."""


def combined(problems: Sequence[Vl3Error], headline: str) -> Vl3Error:
    """Problems as one error: a single one as it is, several as a numbered list under `<number> <headline>.`

    Its family is that of the single problem; of several families the first that a retry cannot cure (configuration,
    data, storage, then platform).
    """
    if len(problems) == 1:
        return problems[0]
    families = [next(family for family in _ORDER if isinstance(problem, family)) for problem in problems]
    lines = [
        f"  {number}. {family.__name__}: {problem}"
        for number, (family, problem) in enumerate(zip(families, problems, strict=True), start=1)
    ]
    return min(families, key=_ORDER.index)("\n".join([f"{len(problems)} {headline}. Mend them all.", *lines]))
