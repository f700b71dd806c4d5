"""The plan of a stage: a pure function, the same for any world size, resumable at any step."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.plans import SETTINGS, make_index, make_plan
from vl3.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[4]


def rows_of(plan, step: int) -> list[tuple[int, ...]]:
    return [pack.rows for pack in plan.packs(step)]


def test_two_plans_are_equal_and_seeds_differ():
    first, second, other = make_plan(), make_plan(), make_plan(seed=4)
    for step in range(60):
        assert first.packs(step) == second.packs(step)
    assert rows_of(first, 0) != rows_of(other, 0)


def test_a_process_of_its_own_computes_the_same_plan():
    code = "from tests.support.plans import make_plan; print([p.rows for p in make_plan().packs(7)])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    assert done.stdout.strip() == str(rows_of(make_plan(), 7))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_together_compute_the_step(world_size):
    plan = make_plan()
    for step in range(0, 60, 7):
        hands = [plan.deal(step, rank, world_size) for rank in range(world_size)]
        assert {len(hand) for hand in hands} == {4 // world_size}
        assert sorted(pack.rows for hand in hands for pack in hand) == sorted(rows_of(plan, step))


def test_any_step_can_be_computed_first():
    whole, resumed = make_plan(), make_plan()
    expected = [rows_of(whole, step) for step in range(60)]
    assert rows_of(resumed, 41) == expected[41]
    assert rows_of(resumed, 12) == expected[12]


def test_the_first_steps_do_not_depend_on_how_many_follow():
    short, long = make_plan(steps=5), make_plan(steps=50)
    assert [rows_of(short, step) for step in range(5)] == [rows_of(long, step) for step in range(5)]


def test_packs_keep_the_limits_and_fill_rows():
    index = make_index()
    plan = make_plan(index)
    lengths, visual = index.length_tokens(SETTINGS), index.visual_tokens(SETTINGS)
    packs = [pack for step in range(60) for pack in plan.packs(step)]
    for pack in packs:
        assert pack.length_tokens == lengths[list(pack.rows)].sum() <= 640
        assert pack.visual_tokens == visual[list(pack.rows)].sum() <= 256
    binding = [max(pack.length_tokens / 640, pack.visual_tokens / 256) for pack in packs]
    assert np.mean(binding) >= 0.9


def test_ranks_have_about_the_same_cost():
    plan = make_plan(packs_per_step=8)
    ratios = []
    for step in range(60):
        costs = [sum(pack.cost for pack in plan.deal(step, rank, 2)) for rank in range(2)]
        ratios.append(max(costs) / min(costs))
    assert np.mean(ratios) < 1.02


def test_only_usable_training_samples_are_drawn():
    index = make_index()
    plan = make_plan(index)
    drawn = {row for step in range(60) for rows in rows_of(plan, step) for row in rows}
    assert drawn <= set(index.usable_rows("train").tolist())
    assert set(index.column("category")[sorted(drawn)]) == {"scene_image", "chart", "general_video"}


def test_the_mixture_drawn_is_the_mixture_asked():
    plan = make_plan(steps=200)
    drawn = plan.mixture_drawn(200)
    total = sum(drawn.values())
    assert total == sum(len(rows) for step in range(200) for rows in rows_of(plan, step))
    for key, share in plan.mixture_asked.items():
        assert drawn[key] / total == pytest.approx(share, abs=0.01)
    assert plan.mixture_drawn(0) == {"scene_image": 0, "chart": 0, "general_video": 0}
    assert sum(plan.mixture_drawn(1).values()) == sum(len(rows) for rows in rows_of(plan, 0))


def test_samples_that_fit_no_row_are_left_out_and_named():
    index = make_index()
    plan = make_plan(index, max_length_tokens=120, visual_budget_tokens=100)
    lengths = index.length_tokens(SETTINGS)
    assert max(lengths[row] for rows in rows_of(plan, 0) for row in rows) <= 120
    assert plan.mixture_notes[0].split(" sample(s) have more than 120 tokens or 100 vision tokens")[0].isdigit()
    assert ": s" in plan.mixture_notes[0]


def test_nothing_that_fits_is_refused():
    with pytest.raises(DataError, match="none of the kinds"):
        make_plan(max_length_tokens=5, visual_budget_tokens=1)


def test_a_step_beyond_the_stage_is_refused():
    with pytest.raises(ConfigError, match=r"the stage has no step 60: it has 60 steps, 0 to 59"):
        make_plan().packs(60)
