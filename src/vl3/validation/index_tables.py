"""Turns the dataset index into the small tables that the expectations check. Each derived column is for one check."""

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from vl3.config.mixture import ONLY_DATASET, MixtureKey
from vl3.config.stages import StageConfig, StageTable
from vl3.data.plan.kinds import SampleCounts, serve_mixture

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


def schema_frame(table: "pa.Table") -> "pd.DataFrame":
    """One row per required column: column, asked, found (`missing` if it does not exist), fits."""
    import pandas as pd

    rows = []
    for column, asked in COLUMN_KINDS.items():
        found = _kind(table.schema.field(column).type) if column in table.column_names else "missing"
        rows.append({"column": column, "asked": asked, "found": found, "fits": found in (asked, "null")})
    return pd.DataFrame(rows)


def lines_frame(table: "pa.Table") -> "pd.DataFrame":
    """One row per annotation line, including refused ones: where, problem_kind, problem, undecided.

    undecided is set for a line with a kind of problem but no reason, or a reason without a kind: readers of the index
    that go by the one and by the other would not agree whether it is a sample.
    """
    import pandas as pd

    frame = table.select(["where", "problem_kind", "problem"]).to_pandas()
    is_undecided = frame["problem"].isna() != frame["problem_kind"].isna()
    frame["undecided"] = pd.Series(None, index=frame.index, dtype=object).mask(is_undecided, UNKNOWN)
    return frame


def samples_frame(table: "pa.Table", stages: StageTable) -> "pd.DataFrame":
    """One row per usable sample (not refused), with the derived columns.

    longest_tokens and visual_tokens are the values for the stage that needs most; seconds_per_frame is the gap between
    two sampled frames; first_copy is the first line of the same split with the same content, if that is another line;
    held_out_copy is, for a held-out sample, a training line with the same content or one of its files.

    A fact about the annotation that is null is the text `unknown` instead; unknown_facts names the KNOWN_COLUMNS that
    have no value in the row, or one that is not finite.
    """
    import pandas as pd

    frame = table.to_pandas()
    frame = frame[frame["problem"].isna() & frame["problem_kind"].isna()].reset_index(drop=True)
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
    _add_copies(frame)
    _add_unknown(frame, has_media, frame["num_frames"].fillna(0) > 0)
    return frame


def _add_unknown(frame: "pd.DataFrame", has_media: "pd.Series", has_video: "pd.Series") -> None:
    """Add unknown_facts; a text needs no size and an image no duration.

    A video without a duration and a frame rate: `duration_seconds, source_fps, seconds_per_frame`.
    """
    import pandas as pd

    applies = dict.fromkeys(_IMAGE_COLUMNS, has_media) | dict.fromkeys(
        (*_VIDEO_COLUMNS, "seconds_per_frame"), has_video
    )
    names = pd.Series("", index=frame.index, dtype=object)
    for column in KNOWN_COLUMNS:
        missing = frame[column].isna() & applies.get(column, True)
        names[missing] = names[missing] + f", {column}"
    frame["unknown_facts"] = names.str.removeprefix(", ").astype(object).where(names != "", None)


def _add_lengths(frame: "pd.DataFrame", stages: StageTable) -> None:
    """Add the tokens of each sample in the stage that needs most."""
    settings = {(stage.image_merge_size, stage.video_merge_size, stage.difffp) for stage in stages.values()}
    lengths, visuals = [], []
    for image_merge, video_merge, difffp in sorted(settings):
        images, videos, kept = (
            frame[f"{name}_m{merge}"]
            for name, merge in (
                ("image_tokens", image_merge),
                ("video_tokens", video_merge),
                ("kept_tokens", video_merge),
            )
        )
        if image_merge != video_merge:  # samples with images and clips have counts of their own for two merges
            images, videos, kept = (
                frame[f"{name}_m{image_merge}{video_merge}"].fillna(plain)
                for name, plain in (("image_tokens", images), ("video_tokens", videos), ("kept_tokens", kept))
            )
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


def _add_copies(frame: "pd.DataFrame") -> None:
    """Add first_copy and held_out_copy: lines with the same content or the same files, by digest.

    t:1 (train, text x, picture p), t:2 (train, x, p), h:1 (heldout, text y, pictures q and p): t:2 has first_copy t:1,
    and h:1 has held_out_copy t:1, because of the picture p.
    """
    known = frame[frame["content_sha256"].notna()]
    first = known.groupby(["split", "content_sha256"], sort=False)["where"].transform("first")
    frame["first_copy"] = first.where(first != known["where"])
    digests = frame["media_sha256"].fillna("") + " " + frame["content_sha256"].fillna("")
    each = digests.astype(object).str.split().explode().dropna()
    is_held_out = (frame["split"] == "heldout").reindex(each.index)
    trained = each[~is_held_out].drop_duplicates()
    places = dict(zip(trained, frame["where"].reindex(trained.index), strict=True))
    held_out = each[is_held_out].map(places).dropna()
    frame["held_out_copy"] = held_out.groupby(level=0).first().reindex(frame.index).astype(object)


def mixture_frame(samples: "pd.DataFrame", stages: StageTable) -> "pd.DataFrame":
    """One row per key of a stage's mixture.

    asked_share is the key's share in the mixture, data_share its share of the stage's usable training samples, and
    oversampling is their ratio. samples counts the key's own samples; it is required_samples where a stage refuses what
    is missing, and dropped_samples where it goes without.

    Mixture chart 1, document 1; 90 charts and 10 documents in the data: asked_share 0.5 and 0.5, data_share 0.9 and
    0.1, oversampling 0.56 and 5.
    """
    import pandas as pd

    trained = samples[samples["split"] == "train"]
    counts = Counter(
        (ONLY_DATASET, category, source)
        for category, source in zip(trained["category"], trained["source"], strict=True)
    )
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


def heldout_frame(samples: "pd.DataFrame", stages: StageTable) -> "pd.DataFrame":
    """One row per category of a mixture or of the data: category, samples (held out), without_chance."""
    import pandas as pd

    held_out = samples[samples["split"] == "heldout"]
    counts = Counter(held_out["category"])
    without_chance = Counter(held_out[held_out["chance"].isna()]["category"])
    keys = [MixtureKey.parse(key) for stage in stages.values() for key in stage.mixture]
    asked = {key.category.value for key in keys if key.category is not None}
    categories = sorted(asked | set(samples["category"].dropna()))
    rows = [{"category": name, "samples": counts[name], "without_chance": without_chance[name]} for name in categories]
    return pd.DataFrame(rows, columns=["category", "samples", "without_chance"])


def _kind(kind: "pa.DataType") -> str:
    import pyarrow as pa

    tests = {
        "null": (pa.types.is_null,),
        "truth": (pa.types.is_boolean,),
        "number": (pa.types.is_integer, pa.types.is_floating),
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary),
    }
    return next((name for name, checks in tests.items() if any(check(kind) for check in checks)), str(kind))
