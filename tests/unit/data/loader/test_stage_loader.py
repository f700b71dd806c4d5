"""The rows of a rank: what the plan says, resumable, with a ledger of what could not be read."""

import os
import shutil
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.support.plans import make_request
from tests.support.processes import is_alive
from tests.support.samples import conversation, grey_frames, image_bytes, video_bytes, write_data_folder
from tests.unit.data.conftest import DATA_CONFIG
from tests.unit.data.loader.conftest import decoders_of, ids_of
from vl3.data.build.dataset import build_dataset
from vl3.data.build.index import DatasetIndex
from vl3.data.plan.planner import plan_stage
from vl3.data.plan.stage_plan import StagePlan
from vl3.data.sample.difffp import keep_mask
from vl3.errors import DataError

NUM_IMAGES = 20


@pytest.fixture(scope="module")
def built_dataset(tokenizer, tmp_path_factory):
    root = tmp_path_factory.mktemp("loader")
    files = {f"{number}.png": image_bytes(40 + number, 60, seed=number) for number in range(NUM_IMAGES)}
    files["v.mp4"] = video_bytes([frame for frame in grey_frames([40, 40, 90, 200]) for _ in range(2)], fps=2)
    train = [
        {"id": f"i{number}", "image": [f"{number}.png"], "conversations": conversation("<image> What?", "A circle.")}
        for number in range(NUM_IMAGES)
    ]
    train += [{"id": "v", "video": ["v.mp4"], "conversations": conversation("<video> What?", "It stays.")}]
    folder = write_data_folder(root / "data", train=train, files=files)
    build_dataset(folder, root / "set", config=DATA_CONFIG, tokenizer=tokenizer, prune=keep_mask, workers=1)
    return root / "set"


@pytest.fixture
def dataset(built_dataset, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(built_dataset, tmp_path / "set"))


@pytest.fixture
def plan(built_dataset, tmp_path):
    """Made from the dataset before a test damages it."""
    (tmp_path / "plan").mkdir()
    mixture = {"scene_image": 3.0, "general_video": 1.0}
    plan_stage([built_dataset], tmp_path / "plan", make_request(mixture=mixture, seed=0, steps=5, packs_per_step=2))
    return StagePlan(tmp_path / "plan")


@pytest.fixture
def load(make_loader, dataset, plan):
    return partial(make_loader, plan, dataset.as_uri())


def damage(dataset, row: int) -> str:
    """Flip a byte of a sample in its shard; returns the sample's name."""
    index = DatasetIndex.read(dataset)
    path = dataset / index.row(row)["shard"]
    data = bytearray(path.read_bytes())
    data[index.row(row)["offset_bytes"] + 600] ^= 1
    path.write_bytes(data)
    return index.row(row)["sample_id"]


def test_rows_are_the_packs_of_the_plan(load):
    with load() as loader:
        for step, taken in enumerate(loader):
            rows = taken.rows
            packs = loader._plan.deal(step, 0, 1)
            assert [len(row.input_ids_T) for row in rows] == [pack.length_tokens for pack in packs]
            assert [row.visual_tokens for row in rows] == [pack.visual_tokens for pack in packs]
            assert all(row.cu_seqlens[-1] == len(row.input_ids_T) for row in rows)
        assert step == 4
        assert loader.ledger.bad_samples == []


def test_two_ranks_share_what_one_computes(load):
    alone, first, second = ids_of(load()), ids_of(load(rank=0, world_size=2)), ids_of(load(rank=1, world_size=2))
    for whole, left, right in zip(alone, first, second, strict=True):
        assert sorted(whole) == sorted(left + right)


def test_resuming_gives_the_same_rows(load):
    with load() as loader:
        whole = list(loader)
    with load(start_step=3) as loader:
        resumed = list(loader)
    assert len(resumed) == 2
    for before, after in zip(whole[3:], resumed, strict=True):
        for left, right in zip(before.rows, after.rows, strict=True):
            assert np.array_equal(left.input_ids_T, right.input_ids_T)
            assert np.array_equal(left.pixels_PC, right.pixels_PC)


def test_an_unreadable_sample_ends_the_run_with_its_name(load, dataset):
    damage(dataset, 20)
    with load() as loader, pytest.raises(DataError) as caught:
        list(loader)
    message = str(caught.value)
    assert message.startswith(
        "sample 'v' (annotations/train.jsonl:21) cannot be used in step 0: row 20 of the index: its bytes in "
    )
    assert "data.max_bad_fraction=0.0 allows 0. Repair the data" in message


def test_below_the_limit_it_is_left_out_named_and_not_replaced(load, dataset):
    whole = ids_of(load())
    name = damage(dataset, 20)
    loader = load(max_bad_fraction=0.05)
    assert ids_of(loader) == [[tuple(i for i in row if i != name) for row in rows] for rows in whole]
    assert [(bad.sample_id, bad.step) for bad in loader.ledger.bad_samples] == [("v", 0)]
    assert "do not match the digest in the index" in loader.ledger.bad_samples[0].reason


def test_a_second_bad_sample_exceeds_the_limit(load, dataset):
    damage(dataset, 20)
    damage(dataset, 0)
    with load(max_bad_fraction=0.05) as loader, pytest.raises(DataError, match=r"bad sample number 2, and .* allows 1"):
        list(loader)


def test_a_row_whose_samples_are_all_bad_stays_in_step(load, dataset):
    for row in range(NUM_IMAGES + 1):
        damage(dataset, row)
    with load(max_bad_fraction=1.0) as loader:
        rows = list(loader)
    assert [[row.sample_ids for row in step.rows] for step in rows] == [[(), ()]] * 5
    assert sum(row.supervised_tokens for step in rows for row in step.rows) == 0
    assert len({bad.sample_id for bad in loader.ledger.bad_samples}) == len(loader.ledger.bad_samples) > 0


def test_closing_early_ends_thread_and_processes(load):
    loader = load(processes=2)
    assert len(list(islice(loader, 2))) == 2
    pids = decoders_of(os.getpid())
    assert len(pids) == 2
    loader.close()
    assert not loader._thread.is_alive()
    assert not any(is_alive(pid) for pid in pids)
