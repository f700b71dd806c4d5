"""What a dataset consists of: samples of each source, and how their lengths and shapes are spread, in fixed bins.

The bins are the same for every dataset, so parts of one are added up, and two builds are compared bin by bin.
"""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vl3.config.mixture import ONLY_DATASET
from vl3.data.build.parts import DATASET
from vl3.data.sample.problems import printable
from vl3.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

MAX_SOURCES = 10_000
"""Above it the field `source` is no name of a source, and counts by source would fill the memory."""
MAX_KEYS = 10_000
"""Keys that are not read are counted up to this number of different ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A number that every sample has, or only some."""

    column: str
    """Column of the table of samples."""
    title: str
    unit: str
    edges: np.ndarray
    """Lower edge of each bin but the first, which has everything below, float64 (bins - 1,)."""

    @property
    def num_bins(self) -> int:
        """Number of bins: one more than edges."""
        return len(self.edges) + 1


def _edges(first: int, last: int, per_octave: int) -> np.ndarray:
    """Powers of two and `per_octave` - 1 steps between: 0, 2, 2 gives 1, 1.41, 2, 2.83, 4."""
    return 2.0 ** (np.arange(first * per_octave, last * per_octave + 1) / per_octave)


MEASURES = (
    Measure(column="longest_tokens", title="Length", unit="tokens", edges=_edges(0, 20, 2)),
    Measure(column="visual_tokens", title="Vision tokens", unit="tokens before DiffFP", edges=_edges(0, 20, 2)),
    Measure(column="supervised_tokens", title="Supervised tokens", unit="tokens", edges=_edges(0, 16, 2)),
    Measure(column="duration_seconds", title="Duration of videos", unit="s", edges=_edges(-3, 17, 2)),
    Measure(column="aspect_ratio", title="Aspect ratio", unit="longer side / shorter side", edges=_edges(0, 8, 4)),
    Measure(column="num_turns", title="Turns", unit="turns", edges=np.arange(1.0, 41.0)),
)

Source = tuple[str, str, str]
"""Split, category and source."""


@dataclass(kw_only=True)
class Profile:
    """Counts over the usable samples of a dataset."""

    samples: Counter[Source] = field(default_factory=Counter)
    trained: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Training samples by dataset, category and source."""
    bins: dict[str, dict[Source, np.ndarray]] = field(default_factory=lambda: {one.column: {} for one in MEASURES})
    """Column of a measure -> source -> samples in each bin, int64 (bins,)."""

    def add(self, frame: "pd.DataFrame") -> None:
        """Count some rows of the table of samples.

        Sources and bins are counted at once, as numbers source * bins + bin: with 3 bins, two rows of source 0 in bin 2
        and one of source 1 in bin 0 are the numbers 2, 2, 3, counted [0 0 2 | 1 0 0], a line for each source.

        Raises:
            DataError: there are more than MAX_SOURCES sources.
        """
        import pandas as pd

        names = frame["source"].fillna("unknown")
        groups = frame.groupby(["split", "category", names], sort=True, observed=True)
        sizes = groups.size()
        sources: list[Source] = [(str(split), str(category), str(source)) for split, category, source in sizes.index]
        self.samples.update(dict(zip(sources, sizes.tolist(), strict=True)))
        of_dataset = frame[DATASET] if DATASET in frame else pd.Series(ONLY_DATASET, index=frame.index)
        trained = pd.DataFrame({"dataset": of_dataset, "category": frame["category"], "source": names})
        sizes = trained[frame["split"] == "train"].groupby(["dataset", "category", "source"], observed=True).size()
        keys = [(str(dataset), str(category), str(source)) for dataset, category, source in sizes.index]
        self.trained.update(dict(zip(keys, sizes.tolist(), strict=True)))
        if len(self.samples) > MAX_SOURCES:
            raise DataError(
                f"the dataset has more than {MAX_SOURCES} sources, so `source` does not name sources (one of them is "
                f"{sources[-1][2]!r:.200}). Give samples of one origin the same `source`."
            )
        numbers = groups.ngroup().to_numpy()
        for measure in MEASURES:
            values = frame[measure.column].to_numpy(dtype=np.float64)
            is_known = ~np.isnan(values)
            places = np.searchsorted(measure.edges, values[is_known], side="right")
            flat = np.bincount(numbers[is_known] * measure.num_bins + places, minlength=len(sources) * measure.num_bins)
            own = self.bins[measure.column]
            for source, counts in zip(sources, flat.reshape(len(sources), measure.num_bins), strict=True):
                own[source] = own.get(source, 0) + counts

    def of_split(self, measure: Measure, split: str) -> np.ndarray:
        """Samples of a split in each bin of a measure, int64 (bins,)."""
        rows = self.by_source(measure, split).values()
        return np.sum([np.zeros(measure.num_bins, dtype=np.int64), *rows], axis=0)

    def by_source(self, measure: Measure, split: str) -> dict[str, np.ndarray]:
        """Samples of each `category:source` of a split in each bin of a measure, int64 (bins,), by name."""
        return {
            f"{category}:{source}": counts
            for (own, category, source), counts in self.bins[measure.column].items()
            if own == split
        }

    def mix(self, split: str) -> dict[str, int]:
        """Samples of each `category:source` of a split, by name."""
        return {
            f"{category}:{source}": count
            for (own, category, source), count in sorted(self.samples.items())
            if own == split
        }


STABILITY_BOUND = 0.2
"""Population stability index above which two builds are said to differ: below 0.1 is taken as no change and above 0.2
as a large one, as in credit scoring, where the index comes from (Karakoulas 2004; Yurdakul 2018, Statistical properties
of population stability index, chapter 1)."""
_LEAST_SHARE = 1e-4
"""Share that an empty bin counts as, so that the index is finite."""


def stability_index(before: np.ndarray, now: np.ndarray) -> float:
    """Population stability index of two counts of the same bins: sum of (now - before) * ln(now / before) of shares.

    Shares 0.5 and 0.5 before, 0.6 and 0.4 now: 0.1 * ln 1.2 + 0.1 * ln 1.25 = 0.041. NaN if one side is empty.
    """
    if not before.sum() or not now.sum():
        return float("nan")
    old, new = (np.maximum(counts / counts.sum(), _LEAST_SHARE) for counts in (before, now))
    return float(((new - old) * np.log(new / old)).sum())


def drift_rows(before: Profile, now: Profile) -> list[dict[str, Any]]:
    """For each split, and the mix and each measure, how far two builds differ.

    Each row has split, measure, stability_index, samples_before and samples_now. What neither build has is left out;
    what only one has is told by the mix.
    """
    rows = []
    for split in ("train", "heldout"):
        mixes = before.mix(split), now.mix(split)
        names = sorted({*mixes[0], *mixes[1]})
        pairs = {"mix": tuple(np.array([mix.get(name, 0) for name in names]) for mix in mixes)}
        pairs |= {one.column: (before.of_split(one, split), now.of_split(one, split)) for one in MEASURES}
        for name, (old, new) in pairs.items():
            if old.sum() or new.sum():
                rows.append(
                    {
                        "split": split,
                        "measure": name,
                        "stability_index": stability_index(old, new),
                        "samples_before": int(old.sum()),
                        "samples_now": int(new.sum()),
                    }
                )
    return rows


def count_keys(counts: Counter[str], keys: "pd.Series") -> None:
    """Count keys that were not read: lists with commas between, null for none."""
    for names, count in keys.dropna().value_counts().items():
        for name in str(names).split(", "):
            if name in counts or len(counts) < MAX_KEYS:
                counts[name] += int(count)


def by_category(samples: Mapping[Source, int]) -> dict[str, dict[str, int]]:
    """Split -> category -> number of samples, both in order."""
    return {
        printable(split): dict(sorted(_categories(list(entries)).items()))
        for split, entries in itertools.groupby(sorted(samples.items()), key=lambda entry: entry[0][0])
    }


def _categories(entries: list[tuple[Source, int]]) -> Counter[str]:
    counts = Counter[str]()
    for (_, category, _), count in entries:
        counts[printable(category)] += count
    return counts
