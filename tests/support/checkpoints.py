"""Checkpoints of an invented state, without an engine: flat tensors with known values."""

from pathlib import Path
from typing import Any

import torch

from vl3.training.checkpoint import Checkpoints, TrainerState
from vl3.training.fragments import MOMENTS, WEIGHTS, Piece, even_share

FINGERPRINT = "f" * 64


def make_trainer(step: int, **changes: Any) -> TrainerState:
    values: dict[str, Any] = {
        "optimizer_step": step,
        "fingerprint": FINGERPRINT,
        "window": {"losses": [0.1 + 0.2, step]},
    }
    return TrainerState(step=step, **(values | changes))


def open_checkpoints(folder: Path | str, fingerprint: str = FINGERPRINT, **settings: Any) -> Checkpoints:
    """The checkpoints at `<folder>/work`, or at a URI."""
    uri = folder if isinstance(folder, str) else (folder / "work").as_uri()
    return Checkpoints(uri, fingerprint=fingerprint, created_by={"step": "train"}, **({"keep": 2} | settings))


class InventedState:
    """Stands in for EngineState: parameters in one flat tensor each, as without ZeRO."""

    is_replicated = True
    device = torch.device("cpu")

    def __init__(self, sizes: dict[str, int] | None = None, *, seed: int = 0) -> None:
        self.shapes = {name: (size,) for name, size in (sizes or {"a.weight": 6, "b.bias": 2}).items()}
        made = torch.Generator().manual_seed(seed)
        self.values = {
            kind: [torch.randn(size, generator=made) for (size,) in self.shapes.values()]
            for kind in (WEIGHTS, *MOMENTS)
        }
        self.flats = self.values[WEIGHTS]
        names = enumerate(self.shapes.items())
        self.pieces = [Piece(name=name, start=0, stop=size, flat=i, offset=0) for i, (name, (size,)) in names]
        self.step_count = 0

    @property
    def sizes(self) -> dict[str, int]:
        return {name: size for name, (size,) in self.shapes.items()}

    def owned(self, rank: int, world_size: int) -> list[Piece]:
        return even_share(self.pieces, rank, world_size)

    def tensor(self, kind: str, flat: int) -> torch.Tensor:
        return self.values[kind][flat]

    def make_moments(self, step_count: int) -> None:
        self.step_count = step_count

    def use_weights(self) -> None:
        pass

    def equals(self, other: "InventedState") -> bool:
        return all(
            torch.equal(mine, theirs)
            for kind, tensors in self.values.items()
            for mine, theirs in zip(tensors, other.values[kind], strict=True)
        )
