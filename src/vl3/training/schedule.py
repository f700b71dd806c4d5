"""The learning rate as a pure function of the step: linear warm-up, then cosine (arXiv 2501.13106 sec. 3.3)."""

import math

from vl3.config.run import OptimizerConfig


def learning_rate_factor(step: int, *, steps: int, warmup_ratio: float, min_ratio: float) -> float:
    """Share of the peak rate in one step.

    It is not 0 in the first step (1/warm-up of the peak) or in the last one, so that no step is wasted. Ten steps,
    warmup_ratio=0.2, min_ratio=0: 0.5 1 1 0.96 0.85 0.69 0.5 0.31 0.15 0.04.

    Args:
        step: 0 for the first step.
        steps: number of steps of the stage.
        warmup_ratio: share of the steps that warm up, rounded up.
        min_ratio: value that the cosine would reach one step after the last.
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
