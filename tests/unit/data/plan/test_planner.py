"""The plan of a stage: a pure function, the same for any world size, with full rows and honest numbers."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.plans import SIZES, length_of, make_plan, make_request, make_rows, write_dataset
from vl3.config.mixture import Draw
from vl3.data.plan.planner import plan_stage
from vl3.data.plan.stage_plan import StagePlan
from vl3.errors import DataError

ROOT = Path(__file__).resolve().parents[4]


def rows_of(plan: StagePlan, step: int) -> list[tuple[int, ...]]:
    return [tuple(sample.row for sample in pack.samples) for pack in plan.packs(step)]


def all_rows(plan: StagePlan) -> list[int]:
    return [row for step in range(plan.steps) for rows in rows_of(plan, step) for row in rows]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_plans_have_the_same_bytes_and_seeds_differ(tmp_path):
    first, _, other = (make_plan(tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert files_of(tmp_path / "a" / "plan") == files_of(tmp_path / "b" / "plan")
    assert rows_of(first, 0) != rows_of(other, 0)


def test_a_process_of_its_own_computes_the_same_plan(tmp_path):
    code = (
        "import sys, pathlib; from tests.support.plans import make_request; "
        "from vl3.data.plan.planner import plan_stage; dataset, out = map(pathlib.Path, sys.argv[1:]); "
        "plan_stage([dataset], out, make_request()); assert 'pandas' not in sys.modules"
    )
    make_plan(tmp_path)
    (tmp_path / "other").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "dataset"), str(tmp_path / "other")]
    subprocess.run(command, check=True, timeout=60, cwd=ROOT)
    assert files_of(tmp_path / "plan") == files_of(tmp_path / "other")


def test_the_first_steps_do_not_depend_on_how_many_follow(tmp_path):
    short, long = make_plan(tmp_path / "short", steps=5), make_plan(tmp_path / "long", steps=50)
    assert [rows_of(short, step) for step in range(5)] == [rows_of(long, step) for step in range(5)]


def test_packs_keep_the_limits_and_fill_rows(tmp_path):
    rows = make_rows()
    plan = make_plan(tmp_path, rows)
    for step in range(60):
        for pack in plan.packs(step):
            samples = [rows[sample.row] for sample in pack.samples]
            assert pack.length_tokens == sum(map(length_of, samples)) <= 640
            assert pack.visual_tokens == sum(row.image_tokens_m1 + row.video_tokens_m1 for row in samples) <= 256
    assert plan.facts.fill.binding >= 0.97
    assert plan.facts.fill.binding >= max(plan.facts.fill.length, plan.facts.fill.visual)


def test_a_sample_has_its_place_in_the_dataset(tmp_path):
    rows = make_rows()
    for pack in make_plan(tmp_path, rows).packs(7):
        for sample in pack.samples:
            row = rows[sample.row]
            assert (sample.span.shard, sample.span.offset_bytes) == (row.shard, row.offset_bytes)
            assert (sample.span.length_bytes, sample.span.sha256) == (row.length_bytes, row.sha256)


def test_only_usable_training_samples_are_drawn(tmp_path):
    rows = make_rows()
    drawn = set(all_rows(make_plan(tmp_path, rows)))
    assert all(rows[row].split == "train" and rows[row].problem is None for row in drawn)
    assert {rows[row].category for row in drawn} == {"scene_image", "chart", "general_video"}


def test_the_mixture_drawn_is_the_mixture_asked(tmp_path):
    plan = make_plan(tmp_path, steps=200)
    total = len(all_rows(plan))
    assert total == plan.facts.samples == sum(kind.drawn for kind in plan.facts.kinds)
    assert [kind.share for kind in plan.facts.kinds] == [0.5, 0.25, 0.25]
    for kind in plan.facts.kinds:
        assert kind.drawn / total == pytest.approx(kind.share, abs=0.01)
        assert kind.epochs == kind.drawn / kind.available


def test_an_epoch_has_every_sample_of_an_even_mixture_once(tmp_path):
    rows = [row for row in make_rows() if row.category == "chart"]
    plan = make_plan(tmp_path, rows, mixture={"chart": Draw(epochs=1.0)}, steps=None, epochs=1.0)
    usable = [number for number, row in enumerate(rows) if row.split == "train" and row.problem is None]
    drawn = all_rows(plan)
    assert set(drawn) == set(usable)
    # the last step was filled up with samples of the second epoch: less than a step's, and what stays open
    assert len(drawn) - len(usable) < plan.facts.samples_per_step + plan.facts.samples / plan.steps / 4
    assert plan.facts.kinds[0].available == len(usable)


def test_two_epochs_have_about_twice_the_steps_of_one(tmp_path):
    mixture = {"scene_image": Draw(epochs=1.0), "chart": 500}
    options = {"mixture": mixture, "steps": None}
    one, two = (make_plan(tmp_path / str(n), make_rows(3000), epochs=n, **options) for n in (1.0, 2.0))
    assert two.steps == pytest.approx(2 * one.steps, abs=1)


@pytest.mark.parametrize(("asked", "unit", "packs"), [(60, 1, 6), (60, 4, 8), (12, 4, 4), (200, 8, 24)])
def test_the_rows_of_a_step_follow_from_its_samples(tmp_path, asked, unit, packs):
    options = {"packs_per_step": None, "samples_per_step": asked, "packs_divisible_by": unit, "steps": 20}
    plan = make_plan(tmp_path, make_rows(3000), mixture={"chart": 1.0}, **options)
    per_pack = plan.facts.samples_per_step / plan.packs_per_step
    assert plan.packs_per_step == packs
    assert plan.packs_per_step % unit == 0
    nearest = min(range(unit, 60, unit), key=lambda rows: abs(np.log(rows * per_pack / asked)))
    assert plan.packs_per_step == nearest
    assert plan.steps == 20


def test_samples_that_fit_no_row_are_left_out_and_named(tmp_path):
    rows = make_rows()
    plan = make_plan(tmp_path, rows, max_length_tokens=120, max_row_visual_tokens=100)
    assert max(length_of(rows[row]) for row in all_rows(plan)) <= 120
    note = plan.facts.notes[0]
    assert note.split(" sample(s) have more than 120 tokens or 100 vision tokens")[0].isdigit()
    assert ": s" in note


def test_limits_that_no_sample_fits_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"all 552 usable training samples have more than 5 tokens or 1 vision tokens"):
        make_plan(tmp_path, max_length_tokens=5, max_row_visual_tokens=1)


def test_a_dataset_without_a_usable_sample_is_refused(tmp_path):
    rows = [replace(row, split="heldout") for row in make_rows(20)]
    with pytest.raises(DataError, match=r"nothing that the stage's mixture asks for.* Usable training samples: none\."):
        make_plan(tmp_path, rows)


def test_a_sample_that_never_finds_company_does_not_stop_the_plan(tmp_path):
    # Rows of 100; samples of 45 fill two at a time, and the one of 60 is alone in its row for ever.
    rows = make_rows(200)
    for number, row in enumerate(rows):
        row.text_tokens, row.category, row.split, row.problem_kind = (60 if number == 5 else 45), "chart", "train", None
        row.shard, row.sha256 = "shard-000000.tar", "0" * 64
        row.image_tokens_m1 = row.kept_tokens_m1 = row.video_tokens_m1 = 0
    plan = make_plan(tmp_path, rows, mixture={"chart": 1.0}, max_length_tokens=100, steps=1000)
    assert plan.facts.fill.length == pytest.approx(0.9, abs=0.005)


def test_two_datasets_are_planned_together(tmp_path):
    for name, seed in (("one", 0), ("two", 1)):
        write_dataset(tmp_path / name, make_rows(300, seed=seed))
    (tmp_path / "plan").mkdir()
    request = make_request(datasets=("one", "two"))
    facts = plan_stage([tmp_path / "one", tmp_path / "two"], tmp_path / "plan", request)
    plan = StagePlan(tmp_path / "plan")
    samples = [sample for step in range(60) for pack in plan.packs(step) for sample in pack.samples]
    assert {sample.dataset for sample in samples} == {0, 1}
    assert max(sample.row for sample in samples) < 300
    assert [len(one.shards) for one in facts.datasets] == [2, 2]


def test_a_mixture_draws_datasets_by_name(tmp_path):
    for name, seed in (("one", 0), ("two", 1)):
        write_dataset(tmp_path / name, make_rows(300, seed=seed))
    (tmp_path / "plan").mkdir()
    mixture = {"one:chart": 1.0, "two": 3.0}
    facts = plan_stage(
        [tmp_path / "one", tmp_path / "two"],
        tmp_path / "plan",
        make_request(datasets=("one", "two"), mixture=mixture, steps=200),
    )
    plan = StagePlan(tmp_path / "plan")
    drawn = [sample.dataset for step in range(200) for pack in plan.packs(step) for sample in pack.samples]
    assert drawn.count(1) / len(drawn) == pytest.approx(0.75, abs=0.01)
    assert [kind.categories for kind in facts.kinds] == [
        ("chart",),
        ("chart", "general_video", "scene_image", "text_only"),
    ]
    assert [kind.asked for kind in facts.kinds] == [len(drawn) / 4, len(drawn) * 3 / 4]


def test_amounts_are_the_samples_of_an_epoch(tmp_path):
    mixture = {"scene_image": 400, "chart": Draw(epochs=2.0), "text_only": Draw(amount=300, max_epochs=1)}
    plan = make_plan(tmp_path, make_rows(3000), mixture=mixture, steps=None, epochs=1.0)
    image, chart, text = plan.facts.kinds
    assert (image.asked, chart.asked, text.asked) == (400, 2 * chart.available, 300)
    in_a_step = plan.facts.samples_per_step
    assert 400 - 10 <= image.drawn <= 400 + 2 * in_a_step
    assert 2 * chart.available - 10 <= chart.drawn <= 2 * chart.available + 2 * in_a_step
    assert text.drawn <= text.available


@pytest.mark.parametrize("limit", [0.5, 1.0, 3.0])
def test_a_stage_of_steps_keeps_max_epochs_and_spreads_it_over_all_steps(tmp_path, limit):
    mixture = {"chart": Draw(amount=5.0, max_epochs=limit), "general_video": 1.0, "text_only": 1.0}
    plan = make_plan(tmp_path, make_rows(600), mixture=mixture, steps=100)
    chart, video, text = plan.facts.kinds
    assert 0.9 * limit * chart.available <= chart.drawn <= np.ceil(limit * chart.available)
    assert video.drawn == pytest.approx(text.drawn, rel=0.05)
    half = plan.mixture_drawn(50)["chart"]
    assert half == pytest.approx(chart.drawn / 2, rel=0.25)


def test_a_stage_whose_samples_run_out_ends_with_its_last_whole_step(tmp_path):
    rows = [row for row in make_rows(1000) if row.category == "chart"]
    plan = make_plan(tmp_path, rows, mixture={"chart": Draw(epochs=3.0, max_epochs=2)}, steps=None, epochs=1.0)
    (chart,) = plan.facts.kinds
    assert 2 * chart.available - 4 * plan.facts.samples_per_step < chart.drawn <= 2 * chart.available
    counts = np.bincount(all_rows(plan))
    assert counts.max() == 2


def test_steps_that_the_limits_do_not_allow_are_refused(tmp_path):
    mixture = {"chart": Draw(amount=1, max_epochs=1)}
    with pytest.raises(DataError, match=r"gives 116 samples at most, which fill \d+ rows; 60 step\(s\) of 4 rows"):
        make_plan(tmp_path, mixture=mixture)


def test_weights_in_a_stage_of_epochs_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"asks for 4 sample\(s\) of \d+, which do not fill one step of 4 rows"):
        make_plan(tmp_path, steps=None, epochs=1.0)


def test_a_cap_takes_a_fixed_part_of_the_samples(tmp_path):
    drawn = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        plan = make_plan(folder, make_rows(1000), mixture={"chart": Draw(amount=1.0, cap=20)}, seed=seed)
        drawn.append(set(all_rows(plan)))
        assert plan.facts.kinds[0].available == 20
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 20


def test_what_is_missing_is_refused_or_dropped_and_never_replaced(tmp_path):
    mixture = {"chart": 3.0, "chart:ocr": 1.0, "plotqa": 1.0}
    with pytest.raises(DataError, match="the data lack 2 of the 3 kinds"):
        make_plan(tmp_path / "refused", mixture=mixture)
    plan = make_plan(tmp_path / "dropped", mixture=mixture, missing="drop")
    assert [(kind.key, kind.share, kind.epochs) for kind in plan.facts.kinds][1:] == [
        ("chart:ocr", 0.0, 0.0),
        ("plotqa", 0.0, 0.0),
    ]
    assert plan.facts.kinds[0].drawn == plan.facts.samples
    assert plan.facts.kinds[1].asked == plan.facts.samples / 5
    assert [note.split(":")[0] for note in plan.facts.notes] == ["chart", "plotqa"]
    assert plan.mixture_drawn(60) == {"chart": plan.facts.samples, "chart:ocr": 0, "plotqa": 0}


def test_the_balance_is_that_of_the_ranks(tmp_path):
    plan = make_plan(tmp_path, packs_per_step=8, steps=20)
    over = []
    for step in range(20):
        costs = [sum(pack.cost for pack in plan.deal(step, rank, 2)) for rank in range(2)]
        over.append(max(costs) / np.mean(costs) - 1)
    assert [one.ranks for one in plan.facts.balance] == [2, 4, 8]
    assert plan.facts.balance[0].mean == pytest.approx(np.mean(over))
    assert plan.facts.balance[0].worst == pytest.approx(max(over))
    assert plan.facts.balance[0].mean < 0.01


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"offset_bytes": -1}, "column offset_bytes has values from -1 to"),
        ({"length_bytes": 2**51}, "column length_bytes has values"),
        ({"text_tokens": -5}, "column text_tokens has values from -5"),
        ({"text_tokens": 2**40}, "column text_tokens has values"),
        ({"shard": "../../etc/passwd"}, r"names the shard '../../etc/passwd', which is no file of a dataset"),
        ({"shard": None}, "names the shard ''"),
        ({"sha256": None}, "sha256 has no digest for some usable sample"),
        ({"sha256": "0" * 63}, "sha256 has no digest for some usable sample"),
        ({"sha256": "x" * 64}, "sha256 has a text that is no digest"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(tmp_path, change, words):
    rows = make_rows(50)
    rows[7] = replace(rows[7], **change)
    with pytest.raises(DataError, match=rf"index\.parquet cannot be read \(.*{words}"):
        make_plan(tmp_path, rows)


def test_a_damaged_index_is_refused(tmp_path):
    dataset = write_dataset(tmp_path / "dataset", make_rows(50))
    content = (dataset / "index.parquet").read_bytes()
    for damaged in (b"", content[:100], content[:-20], bytes(len(content))):
        (dataset / "index.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match=r"index\.parquet cannot be read"):
            plan_stage([dataset], tmp_path, make_request())


def test_sizes_follow_the_settings(tmp_path):
    rows = [row for row in make_rows(100) if row.category == "general_video"]
    kept = make_plan(tmp_path / "a", rows, mixture={"general_video": 1.0})
    plain = make_plan(tmp_path / "b", rows, mixture={"general_video": 1.0}, sizes=replace(SIZES, difffp=False))
    by_row = {sample.row: pack for pack in kept.packs(0) for sample in pack.samples}
    assert all(rows[row].video_tokens_m1 == 2 * rows[row].kept_tokens_m1 for row in by_row)
    assert plain.facts.fill.length > kept.facts.fill.length
