"""The key of a step: a digest over everything that determines its result, kept in parts to compare keys."""

from dataclasses import asdict, dataclass
from typing import Any

from vl3.config.codec import digest

_KEY_HEX = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyParts:
    """What determines the result of a step."""

    config: dict[str, Any]
    """The configuration that matters, flat: `optimizer.warmup_ratio` -> 0.03."""
    inputs: dict[str, str]
    """Digest of each input."""
    modules: dict[str, str]
    """Digest of each module (and template) in the closure of the step's code."""
    libraries: dict[str, str]
    """Version of each library that may change the result."""

    def key(self, task: str) -> str:
        """Identifies the finished result (32 hex digits)."""
        return digest({"task": task, **asdict(self)})[:_KEY_HEX]

    def work_key(self, task: str) -> str:
        """Identifies the unfinished work; without modules and libraries, so that it survives a change of the code."""
        return digest({"task": task, "config": self.config, "inputs": self.inputs})[:_KEY_HEX]
