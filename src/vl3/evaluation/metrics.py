"""Exact match, and the accuracy of guessing."""

import math

from vl3.evaluation.judging.rule import is_same


def is_exact_match(prediction: str, answer: str) -> bool:
    """Whether a prediction says the same as the answer, without case, spaces and a full stop around it."""
    return is_same(prediction, answer)


def mean_chance(chances: list[float | None]) -> float | None:
    """Expected accuracy of guessing among the allowed answers; None if a sample has no fixed set of answers."""
    known = [chance for chance in chances if chance is not None and not math.isnan(chance)]
    if not known or len(known) < len(chances):
        return None
    return sum(known) / len(known)
