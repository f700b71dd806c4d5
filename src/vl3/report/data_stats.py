"""A page of distributions: how long the samples of a dataset and of each source are, and how their media are shaped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from vl3.data.sample.problems import printable
from vl3.report.charts import histogram
from vl3.report.render import render
from vl3.report.text import short_number
from vl3.system.files import atomic_write_text

MAX_CHARTED = 24
"""Sources that have charts of their own, the largest ones; the table has all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """How one number is spread over the samples, in bins that all sources share."""

    title: str
    unit: str
    edges: np.ndarray
    """Lower edge of each bin but the first, which has everything below, float64 (bins - 1,)."""
    by_source: Mapping[str, np.ndarray]
    """Samples in each bin by `category:source`, int64 (bins,)."""

    @property
    def total(self) -> np.ndarray:
        """Samples of all sources in each bin, int64 (bins,)."""
        return np.sum([np.zeros(len(self.edges) + 1, dtype=np.int64), *self.by_source.values()], axis=0)


def quantile(edges: np.ndarray, counts: np.ndarray, share: float) -> float:
    """The value below which a share of the samples is, from the bin that it is in; NaN without samples.

    Edges 1, 2, 4 and counts 0, 4, 4, 0: half of the samples are below 2, three quarters below 2 * 2 ** 0.5 = 2.83. Bins
    of whole numbers give the number itself.
    """
    before = np.concatenate([[0], np.cumsum(counts)])
    wanted = share * before[-1]
    if not before[-1]:
        return float("nan")
    place = min(int(np.searchsorted(before, wanted, side="left")), len(counts)) - 1
    place = max(place, int(np.flatnonzero(counts)[0]))
    if place == 0:
        return 0.0
    low = float(edges[place - 1])
    if (np.diff(edges) == 1).all():
        return low
    high = float(edges[min(place, len(edges) - 1)])
    return low * (high / low) ** ((wanted - before[place]) / counts[place])


def write_stats_page(
    distributions: Sequence[Distribution],
    samples: Mapping[str, int],
    path: Path,
    *,
    dataset: str,
    split: str,
    stage: str,
) -> None:
    """Write the page, which needs no other file.

    Args:
        distributions: what is shown.
        samples: number of samples of each `category:source`.
        path: the page.
        dataset: its name.
        split: the split that is shown.
        stage: the stage whose settings say how long a sample is.

    Raises:
        StorageError: the page cannot be written.
    """
    by_size = sorted(samples, key=lambda name: (-samples[name], name))
    page = render(
        "data_stats.html.j2",
        title=f"Statistics · {printable(dataset)}",
        filters={"printable": printable},
        dataset=dataset,
        split=split,
        stage=stage,
        num_samples=sum(samples.values()),
        charts=[_chart(one, one.total) for one in distributions if one.total.any()],
        titles=[one.title for one in distributions],
        rows=[_row(name, samples, distributions) for name in by_size],
        sources=[{"name": name, "charts": _charts(name, distributions)} for name in by_size[:MAX_CHARTED]],
        not_charted=max(0, len(by_size) - MAX_CHARTED),
    )
    atomic_write_text(path, page)


def _row(name: str, samples: Mapping[str, int], distributions: Sequence[Distribution]) -> dict[str, Any]:
    """Number of samples of a source, its share, and for each distribution `median (95 % below)`, or nothing."""
    figures = []
    for one in distributions:
        counts = one.by_source.get(name, np.zeros(0, dtype=np.int64))
        half, most = (quantile(one.edges, counts, share) for share in (0.5, 0.95))
        figures.append(f"{short_number(_rounded(half))} ({short_number(_rounded(most))})" if counts.any() else "")
    return {"name": name, "samples": samples[name], "share": samples[name] / sum(samples.values()), "figures": figures}


def _rounded(value: float) -> float:
    """Two digits: a bin says no more."""
    return float(f"{value:.2g}")


def _charts(name: str, distributions: Sequence[Distribution]) -> list[dict[str, Any]]:
    return [_chart(one, one.by_source[name]) for one in distributions if one.by_source.get(name, np.zeros(1)).any()]


def _chart(one: Distribution, counts: np.ndarray) -> dict[str, Any]:
    half, most = (short_number(_rounded(quantile(one.edges, counts, share))) for share in (0.5, 0.95))
    message = f"Half of {int(counts.sum()):,} samples have at most about {half}, 95 % at most about {most}"
    chart: Markup = histogram(
        one.edges.tolist(), counts.tolist(), title=one.title, description=message, x_label=one.unit
    )
    return {"title": one.title, "message": message, "chart": chart}
