"""Chooses the next token: the most probable one, or a random one of the likely ones.

Shapes: B rows · W vocabulary.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vl3.errors import ConfigError

_MAX_TEMPERATURE = 1000.0
_SEEDS = 2**32


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are chosen. The default is greedy."""

    temperature: float = 0.0
    """Scores are divided by it before a token is drawn; 0 takes the most probable token."""
    top_p: float = 1.0
    """A token is drawn from the fewest most probable ones that together have at least this probability."""
    seed: int = 0
    """The same seed gives the same answer to the same question, independent of the other questions in the batch."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ConfigError(f"temperature={self.temperature} must not be negative. Use 0 for greedy answers.")
        if self.temperature > _MAX_TEMPERATURE or not 0 <= self.seed < _SEEDS:
            raise ConfigError(
                f"temperature={self.temperature:g} must be at most {_MAX_TEMPERATURE:g}, and seed={self.seed:.6g} at "
                f"least 0 and below {_SEEDS}. Set such values."
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p} must be above 0 and at most 1. Use 1 to draw from all tokens.")


GREEDY = Sampling()


class Chooser:
    """Chooses the next token of each row; every row has its own random generator."""

    def __init__(self, sampling: Sampling, rows: Iterable[int] = (0,)) -> None:
        """Make a generator for each row number."""
        self._sampling = sampling
        self._generators = {row: torch.Generator().manual_seed(sampling.seed * 1_000_003 + row) for row in rows}

    def __call__(self, scores_BW: Tensor, rows: Iterable[int] = (0,)) -> list[int]:
        """The chosen token of each row, given the rows' numbers.

        Probabilities 0.5 0.3 0.15 0.05 and top_p=0.7: the first two are likely, because 0.5 alone is less than 0.7 and
        0.8 is not. A random number r chooses the first if 0.8 * r is up to 0.5, else the second.
        """
        if self._sampling.temperature == 0:
            return scores_BW.argmax(-1).tolist()
        shares_BW = (scores_BW.float().cpu() / self._sampling.temperature).softmax(-1)
        shares_BW, order_BW = shares_BW.sort(dim=-1, descending=True)
        sums_BW = shares_BW.cumsum(-1)
        # A token is likely if those before it have less than top_p together; so the first one always is.
        likely_B = ((sums_BW - shares_BW) < self._sampling.top_p).sum(-1, keepdim=True)
        draws_B1 = torch.stack([torch.rand(1, generator=self._generators[row]) for row in rows])
        places_B1 = torch.searchsorted(sums_BW, draws_B1 * sums_BW.gather(-1, likely_B - 1))
        return order_BW.gather(-1, places_B1.clamp(max=likely_B - 1)).squeeze(-1).tolist()
