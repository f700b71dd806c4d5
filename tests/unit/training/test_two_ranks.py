"""Two real ranks of which one is bad. A gradient that is not finite: both leave the update out, at every ZeRO stage.
A slow forward pass: the rank is named.
"""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

BAD_STEPS = (2, 3, 5)
_RANKS = """
import os, sys, time
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"
from vl3.training.engine import RowLoss, start_process_group, stop_process_group
from vl3.training.job import read_job
from vl3.training.stage import Rank, run_stage

rank, bad, forward, calls = int(os.environ["RANK"]), {2, 3, 5}, RowLoss.forward, 0


def poisoned(self, row):
    global calls
    calls += 1
    loss_sum = forward(self, row)
    if rank == 1 and is_slow:
        time.sleep(0.2)
    elif rank == 1 and calls in bad:  # each rank has one row a step
        loss_sum.register_hook(lambda gradient: gradient * float("nan"))
    return loss_sum


RowLoss.forward = poisoned
start_process_group(local_rank=rank, threads=1, seed=0)
for path in sys.argv[1:]:
    calls, is_slow = 0, "slow" in path
    assert run_stage(read_job(Path(path)), Rank(rank=rank, world_size=2, launched_at=0.0), stop_requested=lambda: False)
stop_process_group()
"""
SLOW = "slow"
CASES = [(zero, precision) for zero in (0, 1, 2, 3) for precision in ("fp32", "bf16")]


@pytest.fixture(scope="module")
def folders(stage_inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a stage for each case; all are trained by the same two processes, one after the other."""
    root = tmp_path_factory.mktemp("ranks")
    script = root / "ranks.py"
    script.write_text(_RANKS)
    found = {}
    for zero, precision, name in [*((*case, f"zero{case[0]}-{case[1]}") for case in CASES), (1, "fp32", SLOW)]:
        folder = root / name
        job = stage_inputs.job(folder, **{
            "stages.vision_adaptation.steps": 6, "engine.log_every_steps": 2, "engine.max_skipped_fraction": 0.6,
            "engine.checkpoint_every_steps": 100, "engine.zero_stage": zero, "engine.precision": precision,
            "launch.processes_per_node": 2,
        })  # fmt: skip
        (folder / "job.json").write_text(json.dumps(asdict(job)))
        found[name] = folder
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script)]
    command += [str(folder / "job.json") for folder in found.values()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return found


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("zero", "precision"), CASES)
def test_both_ranks_leave_it_out_and_the_rows_of_all_are_named(
    zero: int, precision: str, folders: dict[str, Path]
) -> None:
    folder = folders[f"zero{zero}-{precision}"]
    events = read(folder)
    found = [event for event in events if event["type"] == "skipped_update"]
    assert tuple(event["step"] for event in found) == BAD_STEPS
    for event in found:
        assert len(event["rows"]) == 2
        assert all(row["loss"] > 0 and row["samples"] for row in event["rows"])
    (end,) = [event for event in events if event["type"] == "end"]
    assert end["skipped_updates"] == len(BAD_STEPS)
    assert (folder / "model" / "manifest.json").is_file()
    losses = [event["values"]["loss"] for event in events if event["type"] == "metrics"]
    assert len(losses) == 3
    assert all(0 < loss < 100 for loss in losses)  # the weights are finite after the bad steps


def test_a_rank_whose_forward_pass_is_slow_is_named_once(folders: dict[str, Path]) -> None:
    events = read(folders[SLOW])
    found = [event for event in events if event["type"] == "straggler"]
    assert [event["step"] for event in found][-1] == 6
    for event in found:
        assert event["rank"] == 1
        assert event["host"] == socket.gethostname()
        assert event["forward_seconds"] > event["median_seconds"] > 0
    (note,) = [event["text"] for event in events if event["type"] == "note"]
    assert note.startswith(f"rank 1 on {socket.gethostname()} is slower than the others: per step it took")


def test_what_trains_is_said_at_the_start(folders: dict[str, Path]) -> None:
    (start,) = [event for event in read(folders["zero3-bf16"]) if event["type"] == "start"]
    parts = start["parts"]
    assert parts["language"]["trained"] == 0
    assert parts["language"]["parameters"] > 10_000
    assert parts["vision"]["trained"] == parts["vision"]["parameters"] > 10_000
    assert parts["projector"]["peak_rates"] == [0.002]
