"""Exact match, and the accuracy of guessing."""

import math


def normalise(text: str) -> str:
    """The text as it is compared: without leading and trailing spaces, case folded."""
    return text.strip().casefold()


def is_exact_match(prediction: str, answer: str) -> bool:
    """Whether a prediction equals the answer after `normalise`."""
    return normalise(prediction) == normalise(answer)


def mean_chance(chances: list[float | None]) -> float | None:
    """Expected accuracy of guessing among the allowed answers; None if a sample has no fixed set of answers."""
    known = [chance for chance in chances if chance is not None and not math.isnan(chance)]
    if not known or len(known) < len(chances):
        return None
    return sum(known) / len(known)
