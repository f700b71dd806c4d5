"""How a training process reads and decodes its samples. What it trains on does not depend on it."""

from dataclasses import dataclass
from typing import Annotated

from vl3.config.checks import Range, Seconds, Workers, check_fields


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """The decoding processes of each training process, and how they read."""

    processes: Annotated[int, Range(at_least=0, at_most=1024)] = 0
    """Decoding processes of each training process; 0 takes one for each of its cores but one, up to 16."""
    sample_timeout_seconds: Seconds = 120.0
    """How long the decoding of a sample may take before its process is replaced and the sample left out."""
    read_ahead_samples: Workers = 4
    """Samples whose bytes a decoding process reads ahead while it decodes another."""
    cache_gib: Annotated[float, Range(at_least=0, at_most=1e6)] = 0.0
    """Local disk for samples of an object store that are read again, shared by all processes of a machine; 0: none."""

    def __post_init__(self) -> None:
        check_fields(self, "loader")
