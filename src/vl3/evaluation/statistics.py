"""Scores and differences of scores with their uncertainty, by resampling the questions: any score from 0 to 1.

A question is the unit of chance, unless several questions share a medium: then the medium is (a *cluster*), because a
model that understands a video is right in several of its answers at once. Two models are compared question by question.
A benchmark's score is the mean over its questions, or over its parts with equal weights. All draws are seeded, so equal
records give equal numbers. Only what these records can show is counted: training again with another seed would add a
difference of its own.

Shapes: R resamples · C clusters · P parts.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vl3.proportions import CONFIDENCES

RESAMPLES = 4000
"""Resamples of the questions; the 99 % bound then rests on the 40 lowest."""
_SEED = 20250122
"""Seed of all draws, beside a name: the day on which the paper appeared."""
_DIGITS = 12
"""Digits of a mean: 0.85 is not to be 0.8500000000000001 in a table of gates."""
_CELLS = 4_000_000
"""Cells that are drawn at once, so that a large benchmark needs little memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What is known of one question: one model's score, or the difference of two models' scores."""

    value: float
    """A score from 0 to 1, or a difference from -1 to 1."""
    cluster: str
    """What it shares with other questions: a medium; its own id if nothing."""
    part: str = ""
    """The part of the benchmark that it belongs to."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its resamples, from which intervals and bounds of any confidence follow."""

    value: float
    """The mean as measured."""
    draws_R: np.ndarray
    """The mean in each resample, with the two pseudo-clusters of `estimate`."""
    questions: int
    """Number of questions behind it."""
    clusters: int
    """Number of clusters behind it."""

    def at_least(self, confidence: float) -> float:
        """The bound that the true mean is above with this confidence (one-sided)."""
        return min(self.value, float(np.quantile(self.draws_R, 1 - confidence)))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The range that has the true mean with this confidence (two-sided); the measured one is always in it."""
        low, high = np.quantile(self.draws_R, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
        return min(self.value, low), max(self.value, high)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: value, 95 % interval, one-sided bounds by confidence, numbers of questions and clusters."""
        low, high = self.interval()
        return {
            "value": self.value,
            "low": low,
            "high": high,
            "at_least": {str(confidence): self.at_least(confidence) for confidence in CONFIDENCES},
            "questions": self.questions,
            "clusters": self.clusters,
        }


def estimate(scored: Sequence[Scored], *, name: str, bounds: tuple[float, float], by_part: bool = False) -> Estimate:
    """The mean of a benchmark's questions with its uncertainty.

    Clusters are drawn with replacement, within each part if none has questions of two parts. To what was measured two
    pseudo-clusters of one question are added, one at each end of the possible values, because a bootstrap of values
    that are all equal would claim to be certain: 4 questions of 4 that both models answered alike say little.

        40 questions, no difference in any:  value 0, 95 % interval about -0.07 to 0.07
        differences +1 and -1 in 2 and 12 of 100, 0 in the others:  -0.10, interval about -0.17 to -0.02

    Source: Efron and Tibshirani 1993, ch. 13 (percentile interval), over clusters as in Davison and Hinkley 1997, 3.8;
    pseudo-observations as Agresti and Min, Statistics in Medicine 24 (2005) 729, for pairs.

    Args:
        scored: every question once; at least one.
        name: seeds the draws, so that an estimate does not depend on which others are made.
        bounds: lowest and highest value that a question can have: (0, 1) for a score, (-1, 1) for a difference.
        by_part: whether the mean is over the parts with equal weights, not over the questions.
    """
    clusters = _clusters(scored)
    parts = {part: place for place, part in enumerate(dict.fromkeys(one.part for one in scored))} if by_part else {}
    sums_CP = np.zeros((len(clusters), max(len(parts), 1)))
    counts_CP = np.zeros_like(sums_CP)
    for row, questions in enumerate(clusters.values()):
        for one in questions:
            column = parts.get(one.part, 0)
            sums_CP[row, column] += one.value
            counts_CP[row, column] += 1
    rng = np.random.default_rng([_SEED, zlib.crc32(name.encode())])
    draws_R = np.mean(_drawn_means(sums_CP, counts_CP, _strata(counts_CP), bounds, rng), axis=1)
    value = round(float(np.mean(sums_CP.sum(axis=0) / counts_CP.sum(axis=0))), _DIGITS)
    return Estimate(value=value, draws_R=draws_R, questions=len(scored), clusters=len(clusters))


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of several benchmarks with equal weights; they are drawn separately, so their errors do not add up.

    Four benchmarks at 0.5, each with a standard error of 0.02: 0.5 with one of 0.01.
    """
    return Estimate(
        value=round(float(np.mean([one.value for one in estimates])), _DIGITS),
        draws_R=np.mean([one.draws_R for one in estimates], axis=0),
        questions=sum(one.questions for one in estimates),
        clusters=sum(one.clusters for one in estimates),
    )


def _clusters(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    clusters: dict[str, list[Scored]] = {}
    for one in scored:
        clusters.setdefault(one.cluster, []).append(one)
    return clusters


def _strata(counts_CP: np.ndarray) -> list[np.ndarray]:
    """Rows of the clusters that are drawn together: those of a part, or all if a cluster has questions of two parts."""
    if (np.count_nonzero(counts_CP, axis=1) > 1).any():
        return [np.arange(len(counts_CP))]
    return [np.flatnonzero(counts_CP[:, part]) for part in range(counts_CP.shape[1])]


def _drawn_means(
    sums_CP: np.ndarray,
    counts_CP: np.ndarray,
    strata: list[np.ndarray],
    bounds: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """The mean of each part in each resample, (R, P).

    Each stratum of C clusters is drawn as C + 2, of which the two pseudo-clusters have one question in each of its
    parts: with bounds (-1, 1) and three questions without a difference, five are drawn from 0, 0, 0, -1 and 1.
    """
    sums_RP = np.zeros((RESAMPLES, sums_CP.shape[1]))
    counts_RP = np.zeros_like(sums_RP)
    for rows in strata:
        present_P = (counts_CP[rows].sum(axis=0) > 0).astype(float)
        sums = np.concatenate([sums_CP[rows], [bounds[0] * present_P, bounds[1] * present_P]])
        counts = np.concatenate([counts_CP[rows], [present_P, present_P]])
        step = max(1, _CELLS // (len(sums) * sums.shape[1]))
        for first in range(0, RESAMPLES, step):
            chosen = rng.integers(0, len(sums), (min(step, RESAMPLES - first), len(sums)))
            sums_RP[first : first + step] += sums[chosen].sum(axis=1)
            counts_RP[first : first + step] += counts[chosen].sum(axis=1)
    # A small part of a benchmark whose clusters span parts may be missing in a resample: then its own mean stands.
    whole_P = sums_CP.sum(axis=0) / counts_CP.sum(axis=0)
    return np.where(counts_RP > 0, sums_RP / np.maximum(counts_RP, 1), whole_P)
