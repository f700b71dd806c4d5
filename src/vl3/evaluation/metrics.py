"""Exact match, and the confidence interval of a score from a few hundred answers."""

import math

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


def normalise(text: str) -> str:
    """The text as it is compared: without leading and trailing spaces, case folded."""
    return text.strip().casefold()


def is_exact_match(prediction: str, answer: str) -> bool:
    """Whether a prediction equals the answer after `normalise`."""
    return normalise(prediction) == normalise(answer)


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson score), which stays within 0 and 1 and works for few samples.

    9 of 10 right answers give 0.60 to 0.98, 90 of 100 give 0.83 to 0.94, and 0 of 10 give 0 to 0.28.

    Args:
        correct: number of right answers.
        total: number of answers; 0 gives the whole range (0, 1).

    Returns:
        Lower and upper bound of the true share of right answers.
    """
    if total == 0:
        return 0.0, 1.0
    share, square = correct / total, Z_95 * Z_95
    centre = (share + square / (2 * total)) / (1 + square / total)
    margin = Z_95 / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return max(0.0, centre - margin), min(1.0, centre + margin)


def mean_chance(chances: list[float | None]) -> float | None:
    """Expected accuracy of guessing among the allowed answers; None if a sample has no fixed set of answers."""
    known = [chance for chance in chances if chance is not None and not math.isnan(chance)]
    if not known or len(known) < len(chances):
        return None
    return sum(known) / len(known)
