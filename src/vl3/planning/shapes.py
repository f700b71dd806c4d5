"""How large packed rows are: all that FLOPs, memory and time of a training step depend on besides the model.

No numpy: the launcher of a stage reads it. `vl3.planning.row_shapes` measures rows and plans.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RowShape:
    """The size of one packed row, or the mean of several."""

    length_tokens: float
    """Tokens that the decoder sees: text, and vision tokens that DiffFP kept."""
    length_pairs: float
    """Pairs of tokens of the same sample, both ways round: samples of 3 and 2 tokens have 9 + 4."""
    patches: float
    """Patches that the encoder sees."""
    patch_pairs: float
    """Pairs of patches of the same image or frame."""
    projected_tokens: float
    """Vision tokens that the projector sees: those that DiffFP kept."""
    supervised_tokens: float
    """Tokens whose prediction is scored, so that the head computes logits for them."""

    @classmethod
    def mean(cls, shapes: Sequence["RowShape"]) -> "RowShape":
        """The mean of at least one size."""
        return cls(**{name: sum(getattr(one, name) for one in shapes) / len(shapes) for name in cls.__slots__})

    @classmethod
    def largest(cls, shapes: Iterable["RowShape"]) -> "RowShape":
        """A row that is as large as the largest in every count; memory must hold it."""
        found = list(shapes)
        return cls(**{name: max(getattr(one, name) for one in found) for name in cls.__slots__})
