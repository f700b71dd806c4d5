"""Indexes made of numbers alone, and plans of them, for tests of the order and of packing."""

from pathlib import Path
from typing import Any

import numpy as np

from vl3.data.build.index import INDEX_NAME, SUMMARY_NAME, IndexRow, write_index
from vl3.data.plan.demand import PlanRequest
from vl3.data.plan.planner import plan_stage
from vl3.data.plan.samples import SizeRule
from vl3.data.plan.stage_plan import StagePlan
from vl3.system.files import atomic_write_json

SIZES = SizeRule(image_merge_size=1, difffp=True, prune_before_encoder=False)
KINDS = (
    ("scene_image", "caption"),
    ("scene_image", "qa"),
    ("chart", "qa"),
    ("general_video", "qa"),
    ("text_only", "qa"),
)


def make_rows(num_rows: int = 600, *, seed: int = 0) -> list[IndexRow]:
    """Samples of five kinds with realistic lengths; every 20th is held out, every 31st is bad."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num_rows):
        category, source = KINDS[number % len(KINDS)]
        row = IndexRow(sample_id=f"s{number}", split="train" if number % 20 else "heldout", where=f"t:{number}")
        row.category, row.source = category, source
        row.shard, row.offset_bytes, row.length_bytes = f"shard-{number // 200:06d}.tar", 512 * number, 512
        row.sha256 = f"{number:064x}"
        row.text_tokens = int(rng.lognormal(3.2, 0.6)) + 8
        is_video, is_text = category == "general_video", category == "text_only"
        tokens = 0 if is_text else int(rng.choice([16, 24, 36]))
        row.num_images, row.num_frames = int(not (is_video or is_text)), 6 if is_video else 0
        for merge in (1, 2):
            setattr(row, f"image_tokens_m{merge}", 0 if is_video else tokens // merge**2)
            setattr(row, f"video_tokens_m{merge}", 6 * tokens // 4 if is_video else 0)
            setattr(row, f"kept_tokens_m{merge}", 3 * tokens // 4 if is_video else 0)
        if number % 31 == 30:
            row.problem, row.problem_kind, row.shard, row.sha256 = "broken", "undecodable", None, None
        rows.append(row)
    return rows


def length_of(row: IndexRow) -> int:
    """Tokens of a sample in a row with SIZES."""
    return sum(tokens or 0 for tokens in (row.text_tokens, row.image_tokens_m1, row.kept_tokens_m1))


def write_dataset(folder: Path, rows: list[IndexRow]) -> Path:
    """What a plan reads of a built dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    write_index(folder / INDEX_NAME, rows)
    atomic_write_json(folder / SUMMARY_NAME, {})
    return folder


def make_request(**changes: Any) -> PlanRequest:
    options: dict[str, Any] = {
        "mixture": {"scene_image": 2.0, "chart": 1.0, "general_video": 1.0},
        "seed": 3,
        "steps": 60,
        "epochs": None,
        "packs_per_step": 4,
        "samples_per_step": None,
        "packs_divisible_by": 1,
        "max_length_tokens": 640,
        "max_row_visual_tokens": 256,
        "sizes": SIZES,
    }
    return PlanRequest(**{**options, **changes})


def make_plan(folder: Path, rows: list[IndexRow] | None = None, **changes: Any) -> StagePlan:
    """A plan in an empty folder; its dataset is beside it."""
    dataset = write_dataset(folder / "dataset", rows or make_rows())
    (folder / "plan").mkdir()
    plan_stage([dataset], folder / "plan", make_request(**changes))
    return StagePlan(folder / "plan")
