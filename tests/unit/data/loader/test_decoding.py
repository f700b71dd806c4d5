"""Decoders that hang, die, grow or are killed; and their end with the trainer's, however that ends."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import psutil
import pytest

from tests.support import failing_pruners
from tests.support.plans import make_request
from tests.support.processes import is_alive
from tests.unit.data.loader.conftest import decoders_of, ids_of
from vl3.data.loader import decoder, pool, stage_loader
from vl3.data.plan.planner import plan_stage
from vl3.data.plan.stage_plan import StagePlan
from vl3.errors import ClusterError, StorageError

TRAINER = """
import json, os, sys, time
from itertools import islice
from pathlib import Path
from tests.support.failing_pruners import hang_on_dark
from tests.unit.data.conftest import DATA_CONFIG
from vl3.data.loader.decoder import DecoderSetup
from vl3.data.loader.ledger import Ledger
from vl3.data.loader.stage_loader import StageLoader
from vl3.data.plan.stage_plan import StagePlan
from vl3.data.sample.prepare import PrepareSettings
from vl3.data.sample.tokenizer import ChatTokenizer
import psutil
uri, plan, tokenizer = sys.argv[1:]
plan = StagePlan(Path(plan))
settings = PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=True, data=DATA_CONFIG)
setup = DecoderSetup(uris=(uri,), settings=settings, tokenizer=ChatTokenizer.from_folder(Path(tokenizer)),
                     prune=hang_on_dark, read_ahead_samples=2, cache_bytes=0)
ledger = Ledger(fraction=1.0, usable_samples=5)
loader = StageLoader(plan, setup, ledger, processes=2, timeout_seconds=1000.0, rank=0, world_size=1)
time.sleep(3)  # one of them hangs by now
print(json.dumps([child.pid for child in psutil.Process().children()]), flush=True)
time.sleep(1000)
"""


def memory_descriptors() -> list[str]:
    """Where the descriptors of this process lead that are a sample's memory."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [target for link in links if "vl3-sample" in (target := str(link.readlink()))]


@pytest.mark.parametrize(
    ("prune", "timeout_seconds", "reason"),
    [
        ("crash_on_dark", 60.0, "the decoder was killed by signal 11."),
        ("hang_on_dark", 5.0, "the decoder did not finish within 5 s."),
        ("fill_memory_on_dark", 60.0, "its media need more memory than 1024 MiB."),
    ],
)
@pytest.mark.parametrize("processes", [1, 3])
def test_a_decoder_that_breaks_costs_its_sample_and_nothing_else(
    make_loader, videos, video_plan, prune, timeout_seconds, reason, processes, caplog
):
    whole = ids_of(make_loader(video_plan, videos.as_uri(), prune=failing_pruners.keep_all))
    loader = make_loader(
        video_plan,
        videos.as_uri(),
        prune=getattr(failing_pruners, prune),
        timeout_seconds=timeout_seconds,
        max_bad_fraction=0.2,
        processes=processes,
    )
    assert ids_of(loader) == [[tuple(name for name in row if name != "v1") for row in rows] for rows in whole]
    assert any("v1" in row for rows in whole for row in rows)
    (bad,) = loader.ledger.bad_samples
    assert (bad.sample_id, bad.where) == ("v1", "annotations/train.jsonl:2")
    assert bad.reason == f"row 1 of the index: {reason}"
    assert sum(row.count("v1") for rows in whole for row in rows) > 1
    assert [message for message in caplog.messages if "left out" in message] == [
        f"row 1 of the index of dataset 0 is left out: {reason}"  # though it is asked for more than once
    ]


def test_a_resumed_stage_does_not_try_a_known_bad_sample_again(make_loader, videos, video_plan):
    first = make_loader(
        video_plan, videos.as_uri(), prune=failing_pruners.hang_on_dark, timeout_seconds=5.0, max_bad_fraction=0.2
    )
    rows = ids_of(first)
    resumed = make_loader(
        video_plan,
        videos.as_uri(),
        prune=failing_pruners.hang_on_dark,  # would hang for 1000 s
        timeout_seconds=1000.0,
        max_bad_fraction=0.2,
        former=first.ledger.bad_samples,
    )
    assert ids_of(resumed) == rows
    assert resumed.ledger.bad_samples == first.ledger.bad_samples


def test_the_order_of_rows_does_not_depend_on_the_number_of_processes(make_loader, videos, video_plan):
    one, many = (make_loader(video_plan, videos.as_uri(), processes=count) for count in (1, 4))
    assert ids_of(one) == ids_of(many)


def test_the_bound_of_what_is_held_changes_no_row(make_loader, videos, video_plan, monkeypatch):
    whole = ids_of(make_loader(video_plan, videos.as_uri()))
    monkeypatch.setattr(stage_loader, "_MAX_HELD_BYTES", 1)
    assert ids_of(make_loader(video_plan, videos.as_uri(), processes=2)) == whole


@pytest.mark.parametrize(("samples_ahead", "fewest", "most"), [(1, 8, 8), (16, 16, 24)])
def test_small_steps_are_prepared_further_ahead(
    make_loader, videos, tmp_path, monkeypatch, samples_ahead, fewest, most
):
    calls, plan_folder = tmp_path / "calls", tmp_path / "plan"
    calls.touch()
    plan_folder.mkdir()
    monkeypatch.setenv("PRUNER_CALLS", str(calls))
    monkeypatch.setattr(stage_loader, "_SAMPLES_AHEAD", samples_ahead)
    request = make_request(mixture={"general_video": 1.0}, seed=0, steps=20, packs_per_step=1, max_length_tokens=150)
    plan_stage([videos], plan_folder, request)  # four samples a step
    with make_loader(StagePlan(plan_folder), videos.as_uri(), prune=failing_pruners.count) as loader:
        give_up = time.monotonic() + 60.0
        while calls.stat().st_size < fewest and time.monotonic() < give_up:
            time.sleep(0.1)
        time.sleep(0.5)
        assert fewest <= calls.stat().st_size <= most  # nothing was taken
        assert sum(len(row.sample_ids) for step in loader for row in step.rows) == 80


def test_a_process_that_grows_is_replaced_and_no_sample_is_blamed(make_loader, videos, video_plan, caplog):
    caplog.set_level("INFO", pool.__name__)
    whole = ids_of(make_loader(video_plan, videos.as_uri()))
    assert caplog.messages == []
    loader = make_loader(video_plan, videos.as_uri(), prune=failing_pruners.leak)
    assert ids_of(loader) == whole
    num_samples = sum(len(row) for rows in whole for row in rows)
    assert caplog.messages == (num_samples // 2) * ["a decoding process has grown and is replaced"]
    assert loader.ledger.bad_samples == []


def test_an_idle_decoder_that_is_killed_is_replaced(make_loader, videos, video_plan):
    whole = ids_of(make_loader(video_plan, videos.as_uri()))
    with make_loader(video_plan, videos.as_uri()) as loader:
        steps = iter(loader)
        rows = [[row.sample_ids for row in next(steps).rows]]
        time.sleep(0.5)  # it has nothing to do
        (pid,) = decoders_of(os.getpid())
        os.kill(pid, signal.SIGKILL)
        while pid in decoders_of(os.getpid()):
            time.sleep(0.01)
        rows += [[row.sample_ids for row in taken.rows] for taken in steps]
    assert rows == whole
    assert loader.ledger.bad_samples == []


def test_decoders_that_do_not_start_end_the_run(make_loader, videos, video_plan, monkeypatch):
    monkeypatch.setattr(pool.sys, "executable", "/bin/false")
    with make_loader(video_plan, videos.as_uri()) as loader, pytest.raises(ClusterError) as caught:
        next(iter(loader))
    assert "ended while it decoded nothing: the decoder ended with exit status 1" in str(caught.value)


def test_a_dataset_that_is_gone_is_the_stores_error_and_no_bad_sample(make_loader, videos, video_plan, tmp_path):
    with make_loader(video_plan, (tmp_path / "other").as_uri()) as loader, pytest.raises(StorageError) as caught:
        next(iter(loader))
    assert f"{tmp_path / 'other' / 'shard-000000.tar'}: the object is missing" in str(caught.value)
    assert loader.ledger.bad_samples == []


def test_no_memory_is_left_open(make_loader, videos, video_plan):
    with make_loader(video_plan, videos.as_uri(), processes=2) as loader:
        list(islice(loader, 1))
    assert memory_descriptors() == []
    before = len(list(Path("/proc/self/fd").iterdir()))
    ids_of(make_loader(video_plan, videos.as_uri()))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_decoders_end_with_their_trainer_even_while_they_hang(videos, video_plan, tokenizer, number, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    command = [sys.executable, "-c", TRAINER, videos.as_uri(), str(tmp_path / "plan"), str(tmp_path / "tokenizer")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    before = {path.name for path in Path("/dev/shm").iterdir()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as trainer:
        assert trainer.stdout is not None
        pids = json.loads(trainer.stdout.readline())
        assert len(pids) == 2
        assert all(is_alive(pid) for pid in pids)
        trainer.send_signal(number)
        trainer.wait(30)
    psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)
    assert not any(is_alive(pid) for pid in pids)
    assert not [name for name in {path.name for path in Path("/dev/shm").iterdir()} - before if "vl3" in name]


def test_a_decoding_process_imports_no_torch():
    heavy = {"torch", "pyarrow", "minio"}
    script = f"import sys, {decoder.__name__}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
