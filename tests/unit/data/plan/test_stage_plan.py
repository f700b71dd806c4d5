"""A written plan: any step at once, the same for all ranks, and nothing of a damaged one is believed."""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.plans import make_plan
from vl3.config.codec import digest
from vl3.data.plan import arrays, stage_plan
from vl3.data.plan.facts import PLAN_NAME
from vl3.data.plan.packing import CostModel
from vl3.data.plan.stage_plan import StagePlan
from vl3.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_plan(folder)
    return folder / "plan"


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "plan"))


def rows_of(packs) -> list[list[int]]:
    return [[sample.row for sample in pack.samples] for pack in packs]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_together_compute_the_step(made, world_size):
    plan = StagePlan(made)
    for step in range(0, 60, 7):
        hands = [plan.deal(step, rank, world_size) for rank in range(world_size)]
        assert {len(hand) for hand in hands} == {4 // world_size}
        assert sorted(row for hand in hands for row in rows_of(hand)) == sorted(rows_of(plan.packs(step)))


def test_any_step_can_be_read_first(made):
    whole, resumed = StagePlan(made), StagePlan(made)
    expected = [rows_of(whole.packs(step)) for step in range(60)]
    assert rows_of(resumed.packs(41)) == expected[41]
    assert rows_of(resumed.packs(12)) == expected[12]


def test_the_samples_drawn_are_running_sums(made):
    plan = StagePlan(made)
    assert plan.mixture_drawn(0) == {"scene_image": 0, "chart": 0, "general_video": 0}
    drawn = 0
    for step in range(60):
        drawn += sum(len(pack.samples) for pack in plan.packs(step))
        assert sum(plan.mixture_drawn(step + 1).values()) == drawn
    assert plan.mixture_drawn(60) == {kind.key: kind.drawn for kind in plan.facts.kinds}


def test_the_cost_is_that_of_the_model(made):
    free = CostModel(decoder_parameters=0, decoder_layers=0, encoder_parameters=0, encoder_layers=0)
    assert {pack.cost for pack in StagePlan(made, cost_model=free).packs(0)} == {0.0}


def test_arrays_are_files_that_numpy_reads(made):
    samples = np.load(made / "samples.npy", mmap_mode="r", allow_pickle=False)
    plan = StagePlan(made)
    assert samples["row"][: len(plan.packs(0)[0].samples)].tolist() == rows_of(plan.packs(0))[0]


def test_a_step_beyond_the_stage_is_refused(made):
    for step in (60, -1):
        with pytest.raises(ConfigError, match=rf"the stage has no step {step}: it has 60 steps, 0 to 59"):
            StagePlan(made).packs(step)


def test_ranks_that_cannot_share_the_packs_are_refused(made):
    plan = StagePlan(made)
    with pytest.raises(ConfigError, match="packs_per_step=4 is not divisible by the world size 3"):
        plan.deal(0, 0, 3)
    with pytest.raises(ConfigError, match="packs_per_step=4 is not divisible by the world size 8"):
        plan.check(world_size=8, index_sha256=(plan.facts.datasets[0].index_sha256,))


def test_a_plan_of_another_index_is_refused(made):
    plan = StagePlan(made)
    plan.check(world_size=2, index_sha256=(plan.facts.datasets[0].index_sha256,))
    with pytest.raises(DataError, match=r"plan\.json was made from other indexes \(.{12}\) than .* \(ffffffffffff\)"):
        plan.check(world_size=2, index_sha256=("f" * 64,))


def test_a_plan_without_its_last_file_is_none(folder):
    (folder / PLAN_NAME).unlink()
    with pytest.raises(DataError, match=r"plan is not a complete plan: plan\.json, which is written last, is missing"):
        StagePlan(folder)


@pytest.mark.parametrize("name", ["samples", "packs", "drawn"])
@pytest.mark.parametrize("damage", ["missing", "short", "long", "empty", "pipe", "link"])
def test_an_array_that_is_not_the_one_written_is_refused_by_name(folder, name, damage):
    path = folder / f"{name}.npy"
    content = path.read_bytes()
    path.unlink()
    if damage in ("short", "long", "empty"):
        path.write_bytes({"short": content[:-1], "long": content + b"\0", "empty": b""}[damage])
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "link":
        (folder / "elsewhere").write_bytes(content)
        path.symlink_to(folder / "elsewhere")
    with pytest.raises(DataError, match=rf"{name}\.npy (is damaged|cannot be read)"):
        StagePlan(folder)


def read_all(folder: Path) -> list:
    with StagePlan(folder) as plan:
        packs = [rows_of(plan.packs(step)) for step in range(plan.steps)]
        return [packs, [plan.mixture_drawn(step) for step in range(plan.steps + 1)]]


def outcome(folder: Path) -> tuple[list | None, str | None]:
    try:
        return read_all(folder), None
    except DataError as error:
        return None, str(error)


def test_no_flipped_byte_goes_unnoticed(folder, made):
    expected, rng = read_all(made), random.Random(0)
    for _ in range(300):
        path = folder / rng.choice(["samples.npy", "packs.npy", "drawn.npy", PLAN_NAME])
        content = bytearray(path.read_bytes())
        place = rng.randrange(len(content))
        content[place] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        found, error = outcome(folder)
        # what is read all the same is equal: the bit was in a space of the JSON text
        assert found == expected if error is None else path.name in error
        shutil.copyfile(made / path.name, path)


def test_a_file_cut_while_it_is_read_gives_an_error(folder, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 1 << 20)
    plan = StagePlan(folder)
    os.truncate(folder / "samples.npy", 1000)
    with pytest.raises(DataError, match=r"samples\.npy is damaged: its block 0 does not match its digest"):
        plan.packs(0)


def forge(folder: Path, **changes) -> None:
    """Change plan.json as somebody would who knows how it is protected."""
    body = json.loads((folder / PLAN_NAME).read_text())
    body = {name: value for name, value in body.items() if name not in ("format", "sha256")} | changes
    (folder / PLAN_NAME).write_text(json.dumps({"format": 2, "sha256": digest(body), **body}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 61}, "240 items of packs, and its steps need 244"),
        ({"steps": 0}, r"is damaged \(steps is 0\)"),
        ({"steps": "60"}, "is damaged"),
        ({"samples": 1}, "items of samples, and its steps need 1"),
        ({"kinds": []}, "items of drawn, and its steps need 0"),
        ({"arrays": {}}, "no items of samples"),
        ({"datasets": 5}, "is damaged"),
        ({"more": 1}, "is damaged"),
    ],
)
def test_facts_that_contradict_the_arrays_are_refused(folder, changes, words):
    forge(folder, **changes)
    with pytest.raises(DataError, match=rf"plan\.json.*{words}"):
        StagePlan(folder)


def test_a_shard_that_the_plan_does_not_have_is_refused(folder):
    forge(folder, datasets=[{"index_sha256": "0" * 64, "shards": []}])
    with pytest.raises(DataError, match=r"samples\.npy names 512 bytes .* of shard \d+ of dataset 0, which"):
        StagePlan(folder).packs(0)


def test_a_plan_of_another_version_is_refused(folder):
    body = json.loads((folder / PLAN_NAME).read_text()) | {"format": 1}
    (folder / PLAN_NAME).write_text(json.dumps(body))
    with pytest.raises(DataError, match=r"plan\.json has format 1; this version of vl3 reads 2"):
        StagePlan(folder)


def test_the_places_of_a_sample_are_those_where_it_is_read(made, monkeypatch):
    monkeypatch.setattr(stage_plan, "_CHUNK", 7)
    plan = StagePlan(made)
    (dataset,) = plan.facts.datasets
    found = {}
    for step in range(plan.steps):
        for number, rows in enumerate(rows_of(plan.packs(step))):
            for row in rows:
                found.setdefault(row, []).append((step, number))
    rows = sorted(found)[::10]
    places = plan.places_of(dataset.index_sha256, [*rows, 10**6])
    assert places == {row: found[row] for row in rows} | {10**6: []}
    with pytest.raises(DataError, match="was made from other datasets"):
        plan.places_of("0" * 64, rows)
