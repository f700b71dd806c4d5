"""Indexes made of numbers alone, for tests of the order and of packing."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.unit.data.conftest import DATA_CONFIG
from vl3.data.build.index import DatasetIndex, IndexRow, index_schema
from vl3.data.plan.order import StagePlan, plan_stage
from vl3.data.sample.prepare import PrepareSettings

SETTINGS = PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=True, data=DATA_CONFIG)
KINDS = (
    ("scene_image", "caption"),
    ("scene_image", "qa"),
    ("chart", "qa"),
    ("general_video", "qa"),
    ("text_only", "qa"),
)


def make_index(num_rows: int = 600, *, seed: int = 0) -> DatasetIndex:
    """Samples of five kinds with realistic lengths; every 20th is held out, every 31st is bad."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num_rows):
        category, source = KINDS[number % len(KINDS)]
        row = IndexRow(sample_id=f"s{number}", split="train" if number % 20 else "heldout", where=f"t:{number}")
        row.category, row.source = category, source
        row.text_tokens = int(rng.lognormal(3.2, 0.6)) + 8
        is_video, is_text = category == "general_video", category == "text_only"
        tokens = 0 if is_text else int(rng.choice([16, 24, 36]))
        row.num_images, row.num_frames = int(not (is_video or is_text)), 6 if is_video else 0
        for merge in (1, 2):
            setattr(row, f"image_tokens_m{merge}", 0 if is_video else tokens // merge**2)
            setattr(row, f"video_tokens_m{merge}", 6 * tokens // merge**2 if is_video else 0)
            setattr(row, f"kept_tokens_m{merge}", 3 * tokens // merge**2 if is_video else 0)
        if number % 31 == 30:
            row.problem, row.problem_kind = "broken", "undecodable"
        rows.append(row)
    columns = [{name: getattr(row, name) for name in index_schema().names} for row in rows]
    return DatasetIndex(Path("dataset"), pa.Table.from_pylist(columns, schema=index_schema()))


def make_plan(index: DatasetIndex | None = None, **changes) -> StagePlan:
    options = {
        "mixture": {"scene_image": 2.0, "chart": 1.0, "general_video": 1.0},
        "seed": 3,
        "steps": 60,
        "packs_per_step": 4,
        "max_length_tokens": 640,
        "visual_budget_tokens": 256,
        "settings": SETTINGS,
    }
    return plan_stage(index or make_index(), **{**options, **changes})
