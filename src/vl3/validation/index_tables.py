"""Turns the dataset index into the tables that the expectations check. Each derived column is for one check.

Tables of rows (lines, samples) are made of one part of the index at a time; the others of counts over all parts.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vl3.config.mixture import MixtureKey
from vl3.config.stages import StageConfig, StageTable
from vl3.data.plan.kinds import SampleCounts, serve_mixture
from vl3.validation.copies import LINKS
from vl3.validation.profile import Profile, drift_rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMN_KINDS: dict[str, str] = {
    "sample_id": "text",
    "split": "text",
    "category": "text",
    "source": "text",
    "where": "text",
    "shard": "text",
    "sha256": "text",
    "media_sha256": "text",
    "content_sha256": "text",
    "unknown_keys": "text",
    "problem": "text",
    "problem_kind": "text",
    "warning": "text",
    "offset_bytes": "number",
    "length_bytes": "number",
    "num_turns": "number",
    "num_images": "number",
    "num_frames": "number",
    "text_tokens": "number",
    "supervised_tokens": "number",
    "image_tokens_m1": "number",
    "image_tokens_m2": "number",
    "video_tokens_m1": "number",
    "video_tokens_m2": "number",
    "kept_tokens_m1": "number",
    "kept_tokens_m2": "number",
    "min_side_px": "number",
    "max_side_px": "number",
    "aspect_ratio": "number",
    "duration_seconds": "number",
    "source_fps": "number",
    "chance": "number",
    "turns_alternate": "truth",
    "tags_match": "truth",
    "timestamps_ordered": "truth",
    "boxes_in_range": "truth",
    "media_present": "truth",
    "media_decodable": "truth",
    "path_inside": "truth",
}
"""Columns that the index must have, and their kinds. A column without any value (null) matches every kind."""

_IMAGE_COLUMNS = ("min_side_px", "max_side_px", "aspect_ratio")
_VIDEO_COLUMNS = ("duration_seconds", "source_fps")
_NAMED_COLUMNS = ("split", "category")
_OPTIONAL_COLUMNS = ("chance", "warning", "unknown_keys", "problem", "problem_kind", *_NAMED_COLUMNS)
KNOWN_COLUMNS = (
    *(name for name, kind in COLUMN_KINDS.items() if kind != "truth" and name not in _OPTIONAL_COLUMNS),
    "longest_tokens",
    "visual_tokens",
    "seconds_per_frame",
)
"""Columns of `samples` that must have a value in each row that they apply to."""
_COUNTS = tuple(name for name, kind in COLUMN_KINDS.items() if kind == "number" and name != "chance")
"""Columns of numbers that cannot be negative."""
MIXTURE_COLUMNS = [
    "stage",
    "kind",
    "samples",
    "required_samples",
    "dropped_samples",
    "asked_share",
    "data_share",
    "oversampling",
]
UNKNOWN = "unknown"
"""Value of a fact that was not established, so that its check fails."""


SAMPLE_COLUMNS = (
    "where",
    *(name for name, kind in COLUMN_KINDS.items() if kind == "truth"),
    *(*_NAMED_COLUMNS, *_IMAGE_COLUMNS, *_VIDEO_COLUMNS, *LINKS),
    *("supervised_tokens", "longest_tokens", "visual_tokens", "seconds_per_frame", "chance"),
    *("warning", "unknown_keys", "unknown_facts", "negative_facts"),
)
"""Columns of `samples` that a check looks at. Great Expectations copies every column it is given, for each check."""


def schema_frame(schema: "pa.Schema") -> "pd.DataFrame":
    """One row per required column: column, asked, found (`missing` if it does not exist), fits."""
    import pandas as pd

    rows = []
    for column, asked in COLUMN_KINDS.items():
        found = _kind(schema.field(column).type) if column in schema.names else "missing"
        rows.append({"column": column, "asked": asked, "found": found, "fits": found in (asked, "null")})
    return pd.DataFrame(rows)


def lines_frame(batch: "pa.RecordBatch") -> "pd.DataFrame":
    """One row per annotation line, including refused ones: where, problem_kind, problem, undecided.

    undecided is set for a line with a kind of problem but no reason, or a reason without a kind: readers of the index
    that go by the one and by the other would not agree whether it is a sample.
    """
    import pandas as pd

    frame = batch.select(["where", "problem_kind", "problem"]).to_pandas()
    is_undecided = frame["problem"].isna() != frame["problem_kind"].isna()
    frame["undecided"] = pd.Series(None, index=frame.index, dtype=object).mask(is_undecided, UNKNOWN)
    return frame


def samples_frame(
    batch: "pa.RecordBatch", stages: StageTable, others: Mapping[str, np.ndarray], places: Mapping[int, str]
) -> "pd.DataFrame":
    """One row per usable sample (not refused), with the derived columns.

    longest_tokens and visual_tokens are the values for the stage that needs most; seconds_per_frame is the gap between
    two sampled frames. A fact about the annotation that is null is the text `unknown` instead; unknown_facts names the
    KNOWN_COLUMNS that have no value in the row, or one that is not finite, and negative_facts the counts below 0.

    Args:
        batch: some rows of the index.
        stages: the stages whose settings decide how long a sample is.
        others: for each of LINKS, the other row of each row of the batch, or -1.
        places: the annotation line of other rows, where it is known.
    """
    import pandas as pd

    frame = batch.to_pandas()
    is_usable = (frame["problem"].isna() & frame["problem_kind"].isna()).to_numpy()
    frame = frame[is_usable].reset_index(drop=True)
    for column, kind in COLUMN_KINDS.items():
        if kind == "number":
            frame[column] = pd.to_numeric(frame[column]).astype("float64").replace([math.inf, -math.inf], math.nan)
        elif kind == "truth" or column in _NAMED_COLUMNS:
            frame[column] = frame[column].astype(object).where(frame[column].notna(), UNKNOWN)
    has_media = (frame["num_images"].fillna(0) > 0) | (frame["num_frames"].fillna(0) > 0)
    frame.loc[~has_media, list(_IMAGE_COLUMNS)] = math.nan
    frame.loc[~(frame["num_frames"].fillna(0) > 0), list(_VIDEO_COLUMNS)] = math.nan
    frame["seconds_per_frame"] = frame["duration_seconds"] / frame["num_frames"]
    _add_lengths(frame, stages)
    for name, rows in others.items():
        frame[name] = _named(rows[is_usable], places)
    _add_unknown(frame, has_media, frame["num_frames"].fillna(0) > 0)
    frame["negative_facts"] = _names_where({name: frame[name] < 0 for name in _COUNTS}, len(frame))
    return frame


def _named(others: np.ndarray, places: Mapping[int, str]) -> np.ndarray:
    """The places of other rows, None where there is none, object (rows,)."""
    names = np.full(len(others), None, dtype=object)
    for number in np.flatnonzero(others >= 0).tolist():
        other = int(others[number])
        names[number] = places.get(other, f"row {other} of the index")
    return names


def _names_where(masks: "Mapping[str, pd.Series]", count: int) -> np.ndarray:
    """For each row the names whose mask is set, with commas between; None for a row without any. object (rows,).

    Masks a: yes no no, b: yes yes no give `a, b`, `b` and None.
    """
    names = np.full(count, None, dtype=object)
    for name, mask in masks.items():
        for number in np.flatnonzero(mask.to_numpy()).tolist():
            names[number] = name if names[number] is None else f"{names[number]}, {name}"
    return names


def _add_unknown(frame: "pd.DataFrame", has_media: "pd.Series", has_video: "pd.Series") -> None:
    """Add unknown_facts; a text needs no size and an image no duration.

    A video without a duration and a frame rate: `duration_seconds, source_fps, seconds_per_frame`.
    """
    applies = dict.fromkeys(_IMAGE_COLUMNS, has_media) | dict.fromkeys(
        (*_VIDEO_COLUMNS, "seconds_per_frame"), has_video
    )
    missing = {column: frame[column].isna() & applies.get(column, True) for column in KNOWN_COLUMNS}
    frame["unknown_facts"] = _names_where(missing, len(frame))


def _add_lengths(frame: "pd.DataFrame", stages: StageTable) -> None:
    """Add the tokens of each sample in the stage that needs most."""
    settings = {(stage.image_merge_size, stage.difffp) for stage in stages.values()}
    lengths, visuals = [], []
    for image_merge, difffp in sorted(settings):
        images, videos, kept = (frame[f"{kind}_tokens_m{image_merge}"] for kind in ("image", "video", "kept"))
        kept = kept if difffp else videos
        visuals.append(images + videos)
        lengths.append(frame["text_tokens"] + images + kept)
    frame["longest_tokens"] = _row_max(lengths)
    frame["visual_tokens"] = _row_max(visuals)


def _row_max(columns: "list[pd.Series]") -> "pd.Series":
    """The highest of the columns in each row; unknown if one of them is."""
    highest = columns[0]
    for column in columns[1:]:
        highest = highest.where((highest >= column) | highest.isna(), column)
    return highest


SourceCounts = Mapping[tuple[str, str, str], int]
"""Number of usable samples of each (split, category, source)."""


def mixture_frame(counts: SampleCounts, stages: StageTable) -> "pd.DataFrame":
    """One row per key of a stage's mixture.

    asked_share is the key's share in the mixture, data_share its share of the stage's usable training samples, and
    oversampling is their ratio. samples counts the key's own samples; it is required_samples where a stage refuses what
    is missing, and dropped_samples where it goes without.

    Mixture chart 1, document 1; 90 charts and 10 documents in the data: asked_share 0.5 and 0.5, data_share 0.9 and
    0.1, oversampling 0.56 and 5.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for name, stage in stages.items():
        rows += _stage_rows(name, stage, counts)
    return pd.DataFrame(rows, columns=MIXTURE_COLUMNS)


def _stage_rows(name: str, stage: StageConfig, counts: SampleCounts) -> list[dict[str, Any]]:
    kinds = serve_mixture(stage.mixture, counts)
    total, total_amount = sum(kind.available for kind in kinds), sum(kind.amount for kind in kinds)
    rows = []
    for kind in kinds:
        asked = kind.amount / total_amount if total_amount else math.nan
        share = kind.available / total if total else math.nan
        rows.append(
            {
                "stage": name,
                "kind": kind.key,
                "samples": kind.available,
                "required_samples": kind.available if stage.missing == "refuse" else math.nan,
                "dropped_samples": kind.available if stage.missing == "drop" else math.nan,
                "asked_share": asked,
                "data_share": share,
                "oversampling": asked / share if share > 0 else math.nan,
            }
        )
    return rows


def stages_frame(mixture: "pd.DataFrame", stages: StageTable) -> "pd.DataFrame":
    """One row per stage: stage, samples (usable training samples of all kinds of its mixture)."""
    import pandas as pd

    samples = Counter[str]()
    for stage, count in zip(mixture["stage"], mixture["samples"], strict=True):
        samples[stage] += int(count)
    return pd.DataFrame([{"stage": stage, "samples": samples[stage]} for stage in stages])


def heldout_frame(samples: SourceCounts, without_chance: Mapping[str, int], stages: StageTable) -> "pd.DataFrame":
    """One row per category of a mixture or of the data: category, samples (held out), without_chance."""
    import pandas as pd

    held_out = Counter[str]()
    for (split, category, _), count in samples.items():
        held_out[category] += count if split == "heldout" else 0
    keys = [MixtureKey.parse(key) for stage in stages.values() for key in stage.mixture]
    asked = {key.category.value for key in keys if key.category is not None}
    rows = [
        {"category": name, "samples": held_out[name], "without_chance": without_chance.get(name, 0)}
        for name in sorted(asked | set(held_out))
    ]
    return pd.DataFrame(rows, columns=["category", "samples", "without_chance"])


def drift_frame(before: Profile, now: Profile) -> "pd.DataFrame":
    """One row per split, for the mix and for each measure; see `drift_rows`."""
    import pandas as pd

    columns = ["split", "measure", "stability_index", "samples_before", "samples_now"]
    return pd.DataFrame(drift_rows(before, now), columns=columns)


def dataset_frame(samples: SourceCounts) -> "pd.DataFrame":
    """One row: samples (usable ones)."""
    import pandas as pd

    return pd.DataFrame([{"dataset": "all", "samples": sum(samples.values())}])


def _kind(kind: "pa.DataType") -> str:
    import pyarrow as pa

    tests = {
        "null": (pa.types.is_null,),
        "truth": (pa.types.is_boolean,),
        "number": (pa.types.is_integer, pa.types.is_floating),
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary),
    }
    return next((name for name, checks in tests.items() if any(check(kind) for check in checks)), str(kind))
