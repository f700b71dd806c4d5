"""Shares of right answers: their intervals, and which differences between two of them are beyond chance.

A difference is always the second share minus the first one. Two models that answered the same questions are compared
question by question (paired), which tells apart far smaller differences than two samples of questions do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""
CONFIDENCES = (0.8, 0.9, 0.95, 0.975, 0.99)
"""Confidences of one-sided bounds: an evaluation keeps the bound of each, and a gate asks for one of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A difference of two shares."""

    value: float
    """Second share minus first share."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of its 95 % interval."""
    p_value: float
    """Probability of a difference at least as large if there were none."""
    variance: float
    """Variance of the estimate, for the mean of several differences; above zero also where all answers agree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedCounts:
    """How two models answered the same questions."""

    both: int
    """Questions that both answered rightly."""
    only_first: int
    """Questions that only the first one answered rightly."""
    only_second: int
    """Questions that only the second one answered rightly."""
    neither: int
    """Questions that both answered wrongly."""

    @property
    def total(self) -> int:
        """All questions."""
        return self.both + self.only_first + self.only_second + self.neither


def wilson_interval(correct: int, total: int, *, z: float = Z_95) -> tuple[float, float]:
    """Confidence interval of a proportion (Wilson score), which stays within 0 and 1 and works for few samples.

    9 of 10 right answers give 0.60 to 0.98, 90 of 100 give 0.83 to 0.94, and 0 of 10 give 0 to 0.28.

    Args:
        correct: number of right answers.
        total: number of answers; 0 gives the whole range (0, 1).
        z: quantile of the normal distribution; the default gives 95 % between both bounds, `one_sided(0.95)` gives
            95 % above the lower one.

    Returns:
        Lower and upper bound of the true share of right answers.
    """
    if total == 0:
        return 0.0, 1.0
    share, square = correct / total, z * z
    centre = (share + square / (2 * total)) / (1 + square / total)
    margin = z / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return max(0.0, centre - margin), min(1.0, centre + margin)


def one_sided(confidence: float) -> float:
    """Quantile of the normal distribution for a one-sided bound: 0.95 gives 1.645, 0.975 gives 1.960."""
    return NormalDist().inv_cdf(confidence)


def paired_difference(counts: PairedCounts) -> Difference:
    """The difference of two models on the same questions: McNemar's exact test, Newcombe's paired score interval.

    Only questions that one of them missed tell them apart. Both right 80 times, one of them alone 2 and 12 times,
    neither 6 times: 0.82 and 0.92, so 0.10 with an interval of 0.03 to 0.18, p = 0.013. The same two shares of two
    separate samples of 100 give p = 0.057.

    Source: Newcombe, Statistics in Medicine 17 (1998) 2635, method 10.
    """
    first, second = counts.both + counts.only_first, counts.both + counts.only_second
    low, high = _newcombe((first, counts.total), (second, counts.total), _agreement(counts))
    lost, won, total = counts.only_first + 0.5, counts.only_second + 0.5, counts.total + 2  # Agresti and Min 2005
    return Difference(
        value=(counts.only_second - counts.only_first) / counts.total,
        low=low,
        high=high,
        p_value=_sign_test(counts.only_first, counts.only_second),
        variance=(lost + won - (won - lost) ** 2 / total) / total**2,
    )


def independent_difference(first: tuple[int, int], second: tuple[int, int]) -> Difference:
    """The difference of two shares of different questions: Fisher's exact test, Newcombe's interval.

    56 of 70 and 48 of 80 right: 0.80 and 0.60, so -0.20 with an interval of -0.33 to -0.05, p = 0.013.

    Source: Newcombe, Statistics in Medicine 17 (1998) 873, method 10.

    Args:
        first: right answers and all answers, which must be more than none.
        second: the same of the other model.
    """
    low, high = _newcombe(first, second, 0.0)
    variance = 0.0
    for correct, total in (first, second):  # one right and one wrong answer added: Agresti and Caffo 2000
        share = (correct + 1) / (total + 2)
        variance += share * (1 - share) / (total + 2)
    value = second[0] / second[1] - first[0] / first[1]
    return Difference(value=value, low=low, high=high, p_value=_fisher(first, second), variance=variance)


def mean_difference(differences: Sequence[Difference]) -> Difference:
    """The mean of differences of separate samples with equal weights, by the normal approximation.

    Ten differences of 0.02, each with a standard error of 0.02: 0.02 with a standard error of 0.0063, p = 0.002.
    """
    count = len(differences)
    value = sum(one.value for one in differences) / count
    variance = sum(one.variance for one in differences) / count**2
    margin = Z_95 * math.sqrt(variance)
    p_value = math.erfc(abs(value) / math.sqrt(2 * variance))
    return Difference(
        value=value, low=max(-1.0, value - margin), high=min(1.0, value + margin), p_value=p_value, variance=variance
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for their number (Holm): each below 0.05 is, all together, wrong in 5 % of cases at most.

    [0.01, 0.04, 0.03] gives [0.03, 0.06, 0.06]: the smallest times 3, the next times 2, and none below an earlier one.
    """
    corrected, lowest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        lowest = max(lowest, min(1.0, p_values[index] * (len(p_values) - place)))
        corrected[index] = lowest
    return corrected


def _newcombe(first: tuple[int, int], second: tuple[int, int], agreement: float) -> tuple[float, float]:
    """Interval of second - first from the Wilson intervals of both; `agreement` is the correlation of the answers."""
    (low_1, high_1), (low_2, high_2) = wilson_interval(*first), wilson_interval(*second)
    share_1, share_2 = first[0] / first[1], second[0] / second[1]
    down = _joined(share_2 - low_2, high_1 - share_1, agreement)
    up = _joined(high_2 - share_2, share_1 - low_1, agreement)
    return max(-1.0, share_2 - share_1 - down), min(1.0, share_2 - share_1 + up)


def _joined(one: float, other: float, agreement: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * agreement * one * other + other * other))


def _agreement(counts: PairedCounts) -> float:
    """Correlation of two models' answers (phi), moved towards zero by half a question (Newcombe)."""
    agree, differ = counts.both * counts.neither, counts.only_first * counts.only_second
    rows = (counts.both + counts.only_first) * (counts.only_second + counts.neither)
    columns = (counts.both + counts.only_second) * (counts.only_first + counts.neither)
    if rows == 0 or columns == 0:
        return 0.0
    shared = float(agree - differ)
    if shared > 0:
        shared = max(0.0, shared - counts.total / 2)
    return shared / math.sqrt(rows * columns)


def _sign_test(one: int, other: int) -> float:
    """Two-sided probability of a split at least as uneven as this, if both sides are equally likely."""
    total, less = one + other, min(one, other)
    logs = [_log_choose(total, count) - total * math.log(2) for count in range(less + 1)]
    return min(1.0, 2 * math.fsum(math.exp(log) for log in logs))


def _fisher(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Two-sided p value of Fisher's exact test: of all tables with these sums, those that are no more likely."""
    right, total = first[0] + second[0], first[1] + second[1]

    def log_probability(of_first: int) -> float:
        return _log_choose(first[1], of_first) + _log_choose(second[1], right - of_first) - _log_choose(total, right)

    seen = log_probability(first[0])
    logs = map(log_probability, range(max(0, right - second[1]), min(right, first[1]) + 1))
    return min(1.0, math.fsum(math.exp(log) for log in logs if log <= seen + 1e-7))


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
