"""Tells a rank's heart what the engine is doing, through hooks: the engine itself need not know of hearts.

A step of two rows beats: data, forward, backward, forward, backward, optimizer, measuring, saving.
"""

import time
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from vl3.training.heart import Activity, Heart


def follow_engine(heart: Heart, module: nn.Module, optimizer: Optimizer) -> None:
    """Have the passes and updates of an engine beat.

    Args:
        heart: this rank's.
        module: what the engine calls once for each row.
        optimizer: the one that updates the weights, which the engine may have wrapped.
    """
    module.register_forward_pre_hook(lambda *_: heart.beat(Activity.FORWARD))
    module.register_forward_hook(lambda *_: heart.beat(Activity.BACKWARD))
    optimizer.register_step_pre_hook(lambda *_: heart.beat(Activity.OPTIMIZER))


class TimedSave:
    """A callback that saves, with its time given to a meter and the heart saying that it saves."""

    def __init__(self, save: Callable[[Any], None], heart: Heart, note_seconds: Callable[[float], None]) -> None:
        """`note_seconds` gets the time for which training stood still."""
        self._save = save
        self._heart = heart
        self._note_seconds = note_seconds

    def __call__(self, step: Any) -> None:
        """Save if the step is due."""
        self._heart.beat(Activity.SAVING)
        started = time.perf_counter()
        self._save(step)
        self._note_seconds(time.perf_counter() - started)
