"""Rows of a stage: those of a plan that was written, and those that a mixture lets expect."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.plans import make_plan
from vl3.planning.rows import assumed_rows, largest_row, planned_rows
from vl3.recipes.catalog import get_recipe


def test_rows_of_a_plan_are_its_packs(tmp_path: Path) -> None:
    with make_plan(tmp_path) as plan:
        tables = np.concatenate([plan.table(step) for step in range(plan.steps)])
        rows = planned_rows(tmp_path / "plan", 2)
        assert (rows.steps, rows.packs_per_step, rows.samples) == (plan.steps, plan.packs_per_step, plan.facts.samples)
    assert rows.mean.length_tokens == pytest.approx(tables["length_tokens"].mean())
    assert rows.mean.patch_pairs == pytest.approx(tables["patch_pairs"].mean())
    assert rows.largest.length_tokens == tables["length_tokens"].max()
    assert rows.largest.patches == tables["patches"].max()
    balance = {one.ranks: one.mean for one in plan.facts.balance}
    assert rows.imbalance == balance[2]


def test_rows_of_a_mixture_have_the_samples_that_it_asks_for() -> None:
    config = get_recipe("vl3_2b")
    rows = assumed_rows(config, "alignment")
    assert rows.samples == pytest.approx(21_970_000, rel=0.001)
    assert rows.mean.projected_tokens == pytest.approx(0.99 * 10_240, rel=0.001)  # vision tokens bind
    assert rows.mean.patches == pytest.approx(rows.mean.projected_tokens)  # images are not merged
    assert rows.packs_per_step % 16 == 0
    assert "an image has 1,600 patches" in rows.assumptions[0]
    video = assumed_rows(config, "video")
    assert video.mean.patches == pytest.approx(4 * video.mean.projected_tokens)  # everything is merged 2 x 2
    assert video.mean.patch_pairs < video.mean.patches**2 / 10  # attention stays in a frame


def test_the_largest_row_is_full() -> None:
    config = get_recipe("vl3_2b")
    images, videos = largest_row(config, "alignment"), largest_row(config, "multitask")
    assert images.length_tokens == videos.length_tokens == 16_384
    assert (images.patches, videos.patches) == (10_240, 40_960)
