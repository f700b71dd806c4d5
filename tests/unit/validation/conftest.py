"""An index of a good small dataset, to be broken one property at a time."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pytest

from vl3.config.data import Category
from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.data.build.index import IndexRow, index_schema
from vl3.recipes.catalog import get_recipe

TRAIN_ROWS = 10
HELDOUT_ROWS = 3


@pytest.fixture(scope="session")
def config() -> RunConfig:
    """The tiny recipe, asking for three held-out samples of each category."""
    return apply_overrides(get_recipe("tiny"), [f"evaluation.samples_per_task={HELDOUT_ROWS}"])


@pytest.fixture(scope="session")
def make_rows() -> Callable[[], list[IndexRow]]:
    """Ten training and three held-out rows of each category, captions among those of stage 1; nothing is wrong."""
    return _rows


@pytest.fixture
def rows() -> list[IndexRow]:
    """The rows of make_rows, for a test to break."""
    return _rows()


@pytest.fixture(scope="session")
def make_table() -> Callable[[list[IndexRow]], pa.Table]:
    """Rows as the table that the index holds."""
    return lambda rows: pa.Table.from_pylist([asdict(row) for row in rows], schema=index_schema())


def _rows() -> list[IndexRow]:
    rows: list[IndexRow] = []
    for split, count in (("train", TRAIN_ROWS), ("heldout", HELDOUT_ROWS)):
        for category in Category:
            rows += [_row(split, category.value, len(rows) + index) for index in range(count)]
    return rows


def _row(split: str, category: str, number: int) -> IndexRow:
    is_video = category in ("general_video", "streaming", "temporal_grounding")
    has_image = not is_video and category != "text_only"
    captioned = category in ("scene_image", "scene_text", "document") and number % 2 == 0
    row = IndexRow(
        sample_id=f"s{number}",
        split=split,
        category=category,
        source="caption" if captioned else "qa",
        where=f"annotations/{split}.jsonl:{number}",
        shard="shard-000000.tar",
        offset_bytes=1024 * number,
        length_bytes=1024,
        sha256=f"{number:064x}",
        media_sha256=f"media-{number}" if is_video or has_image else "",
        content_sha256=f"content-{number}",
        num_turns=2,
        num_images=int(has_image),
        num_frames=4 if is_video else 0,
        text_tokens=30,
        supervised_tokens=3,
        image_tokens_m1=16 * has_image,
        image_tokens_m2=4 * has_image,
        video_tokens_m1=16 * is_video,
        video_tokens_m2=16 * is_video,
        kept_tokens_m1=10 * is_video,
        kept_tokens_m2=10 * is_video,
        chance=0.25,
        **_media(is_video, has_image),
    )
    row.accept()
    return row


def _media(is_video: bool, has_image: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if is_video or has_image:
        facts |= {"min_side_px": 56, "max_side_px": 84, "aspect_ratio": 1.5}
    if is_video:
        facts |= {"duration_seconds": 4.0, "source_fps": 8.0}
    return facts
