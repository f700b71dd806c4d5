"""A save of 1 GB of training state on two ranks: how long training stands still, host memory, and the rate of writing.

`python -m benchmarks.save [--megabytes 1000] [--saves 5] [--zero 1] [--folder DIR]`. The engine is a real one of
DeepSpeed over plain matrices, whose moments are filled with noise. Each save is compared in the same process and moment
with one copy of as many bytes between two buffers that were touched before; rates with one rank that writes alone, and
with a bare loop that writes and syncs the same bytes. `--small` is a quick look; nothing is recorded then.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import ROOT, write_result

_WIDTH = 1024
_BARE_FILE_BYTES = 8 * 2**20


def main() -> None:
    """Start the two ranks, and record what rank 0 prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--zero", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where checkpoints are written; the temporary folder otherwise")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rank", type=int)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        return measure(arguments)
    command = [sys.executable, "-m", "benchmarks.save", *sys.argv[1:]]
    with tempfile.TemporaryDirectory(prefix="vl3-save-", dir=arguments.folder) as scratch:
        common = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": "2",
            "OMP_NUM_THREADS": "1",
        }
        common |= {"GLOO_SOCKET_IFNAME": "lo", "TORCHDYNAMO_DISABLE": "1", "VL3_SAVE_FOLDER": scratch}
        ranks = [
            subprocess.Popen(
                [*command, "--rank", str(rank)],
                env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                cwd=ROOT,
            )
            for rank in (0, 1)
        ]
        codes = [process.wait() for process in ranks]
    if any(codes):
        sys.exit(f"the ranks ended with {codes}")
    return None


def measure(arguments: argparse.Namespace) -> None:
    """One rank: all measurements, in step with the other."""
    from vl3.training.checkpoint import Checkpoints, TrainerState
    from vl3.training.engine import start_process_group, stop_process_group
    from vl3.training.events import EventLog
    from vl3.training.saver import Saver

    start_process_group(local_rank=arguments.rank, threads=1, seed=0)
    folder = Path(os.environ["VL3_SAVE_FOLDER"])
    state = make_state(20 if arguments.small else arguments.megabytes, arguments.zero)
    before = psutil.Process().memory_info().rss
    checkpoints = Checkpoints(folder.as_uri(), fingerprint="f", keep=1, created_by={})
    events = EventLog(folder / "events.jsonl" if arguments.rank == 0 else None)
    with contextlib.closing(Saver(checkpoints, state, events, rank=arguments.rank, world_size=2)) as saver:
        saver._prepared.result()
        stalls, copies, both = [], [], []
        peak = Peak()
        for step in range(1, arguments.saves + 1):
            copies.append(together(plain_copy(saver.host_bytes)))
            trainer = TrainerState(step=step, optimizer_step=step, fingerprint="f", window={})
            stalls.append(together(partial(save, saver, trainer, step)))
            started = time.perf_counter()
            with peak:
                assert saver.settle(60) == ""
            both.append(slowest(time.perf_counter() - started))
        rows = rates(saver, folder, arguments.rank, statistics.median(both))
    memory = (peak.bytes - before) / saver.host_bytes
    if arguments.rank == 0:
        report(arguments, saver.host_bytes, stalls, copies, memory, rows)
    stop_process_group()


def make_state(megabytes: int, zero: int) -> Any:
    """The state of an engine over matrices: 12 bytes a value, on both ranks together."""
    import deepspeed
    import torch
    from torch import nn

    from vl3.training.snapshot import EngineState

    matrices = max(1, megabytes * 10**6 // 12 // _WIDTH**2)
    model = nn.ModuleList(nn.Linear(_WIDTH, _WIDTH, bias=False) for _ in range(matrices))
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": zero, "reduce_bucket_size": 10**7, "allgather_bucket_size": 10**7},
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    state = EngineState(engine, list(model.named_parameters()))
    state.make_moments(1)
    for kind in ("exp_avg", "exp_avg_sq"):
        for flat in range(len(state.flats)):
            state.tensor(kind, flat).normal_()
    return state


def save(saver: Any, trainer: Any, step: int) -> None:
    """What a step of training waits for."""
    assert saver.has_room(step)
    saver.save(trainer)


def plain_copy(size_bytes: int) -> Callable[[], None]:
    """One copy between two buffers whose pages were touched before."""
    import torch

    source, target = torch.ones(size_bytes // 4), torch.zeros(size_bytes // 4)

    def copy() -> None:
        target.copy_(source)

    return copy


def together(work: Callable[[], None]) -> float:
    """Seconds of the slower rank, when both begin at the same moment."""
    import torch.distributed as dist

    dist.barrier()
    started = time.perf_counter()
    work()
    return slowest(time.perf_counter() - started)


def slowest(seconds: float) -> float:
    """The larger of both ranks' times."""
    import torch

    from vl3.training.collectives import gather_json

    return max(gather_json(seconds, torch.device("cpu")))


def rates(saver: Any, folder: Path, rank: int, both_seconds: float) -> dict[str, float]:
    """Bytes per second: one rank alone, both, and both with bare writes."""
    import torch.distributed as dist

    from vl3.store.objects import FileStore
    from vl3.training.fragment_files import write_files
    from vl3.training.fragments import KINDS

    def alone() -> None:
        if rank == 0:
            where = FileStore(folder / "alone")
            write_files(
                saver._snapshot, KINDS, where, prefix="r", done={}, folder="x", at_once=1, is_cancelled=lambda: False
            )

    def bare() -> None:
        place = folder / f"bare-{rank}"
        place.mkdir()
        data = os.urandom(_BARE_FILE_BYTES)
        for number in range(max(1, saver.host_bytes // _BARE_FILE_BYTES)):
            with (place / str(number)).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    one_seconds = together(alone)
    bare_seconds = together(bare)
    dist.barrier()
    if rank == 0:
        for name in ("alone", "bare-0", "bare-1"):
            shutil.rmtree(folder / name)
    share = saver.host_bytes
    return {"one": share / one_seconds, "both": 2 * share / both_seconds, "bare": 2 * share / bare_seconds}


class Peak:
    """The largest resident memory of this process, looked at while a block runs."""

    def __init__(self) -> None:
        self.bytes = 0

    def __enter__(self) -> None:
        import threading

        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.02):
            self.bytes = max(self.bytes, process.memory_info().rss)


def free_port() -> int:
    """A port that is free now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def report(
    arguments: argparse.Namespace,
    share: int,
    stalls: list[float],
    copies: list[float],
    memory: float,
    rate: dict[str, float],
) -> None:
    """Print the rows, and record them unless it was a quick look."""
    stall, copy = statistics.median(stalls), statistics.median(copies)
    rows = [
        ["state of both ranks", f"{2 * share / 1e6:.0f} MB", ""],
        ["training stands still, median of the saves", f"{stall * 1e3:.0f} ms", ""],
        ["the same, the first save", f"{stalls[0] * 1e3:.0f} ms", ""],
        ["plain copy of as many bytes", f"{copy * 1e3:.0f} ms", ""],
        ["standstill, in plain copies", f"{stall / copy:.2f}", "1.10"],
        ["host memory that saving adds, in shares of the rank", f"{memory:.2f}", "1.10"],
        ["one rank writes alone", f"{rate['one'] / 1e6:.0f} MB/s", ""],
        ["both write", f"{rate['both'] / 1e6:.0f} MB/s", "1.8 times one, or the device"],
        ["both, in times of one", f"{rate['both'] / rate['one']:.2f}", "1.80"],
        ["both, bare writes without digests", f"{rate['bare'] / 1e6:.0f} MB/s", ""],
    ]
    for row in rows:
        print(*row, sep=" | ", flush=True)
    if arguments.small:
        return
    write_result(
        "save",
        title="Saving a checkpoint",
        question="How long does training stand still for a save of 1 GB of state on two ranks, how much host memory "
        "does it take, and how fast is it written?",
        command=f"python -m benchmarks.save --megabytes {arguments.megabytes} --saves {arguments.saves}",
        columns=["what", "measured", "limit"],
        rows=rows,
        notes=[
            f"ZeRO {arguments.zero}; one thread a rank; written to a local disk, each file synced and hashed.",
            "The standstill has the agreement of the ranks in it; seconds of each save: "
            + ", ".join(f"{one:.3f}" for one in stalls)
            + "; of each plain copy: "
            + ", ".join(f"{one:.3f}" for one in copies),
        ],
        libraries=["torch", "deepspeed"],
    )


if __name__ == "__main__":
    main()
