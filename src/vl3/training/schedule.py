"""The learning rate as a pure function of the step: linear warm-up, then cosine (arXiv 2501.13106 sec. 3.3)."""

import math

from vl3.config.run import OptimizerConfig


def learning_rate_factor(step: int, *, steps: int, warmup_ratio: float, min_ratio: float) -> float:
    """Share of the peak rate in one step.

    The first step already moves (1/warm-up of the peak) and the last one still does, so that no step is wasted.

    Args:
        step: 0 for the first step.
        steps: steps of the stage.
        warmup_ratio: share of the steps that warm up, rounded up.
        min_ratio: where the cosine would end, one step after the last.
    """
    warmup = math.ceil(warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / (steps - warmup)
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def stage_factor(step: int, steps: int, optimizer: OptimizerConfig) -> float:
    """learning_rate_factor with the ratios of the configuration."""
    return learning_rate_factor(
        step, steps=steps, warmup_ratio=optimizer.warmup_ratio, min_ratio=optimizer.min_lr_ratio
    )
