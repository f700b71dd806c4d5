"""Training on CPU against transformers' VideoLlama3 and its Trainer. `python -m benchmarks.train_cpu` (20 minutes;
`--width 512` an hour).

Same weights, same samples, one run: ours under DeepSpeed in packed rows, theirs as a padded batch and as one packed row
whose positions restart. One and two processes, vocabularies of 4k, 8k and 32k words. Every measurement is a torchrun of
its own; the three take turns, so that a busy machine slows all of them. A profile of each says where its time goes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.model_gpu import Sample, Size, make_models, their_batch
from benchmarks.record import write_result
from benchmarks.trained_rows import WARM_UP_STEPS, packed_row, their_packed, trainer_seconds

WIDTHS = {"256": (256, 768, 4, 128, 384, 3), "512": (512, 1536, 4, 256, 768, 3)}
"""Decoder width, inner width and layers, encoder width, inner width and layers."""
WAYS = ("ours", "padded", "packed")
SAMPLES = 12
WORDS = (16, 200)
"""Words of a sample, as in instruction data: most are short, some long; the answer is its last part."""
GRIDS = ((8, 8), (6, 10), (10, 6), (12, 8), (4, 14))
PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "attention": ("aten::_scaled_dot_product",),
    "head's softmax": ("aten::_log_softmax", "aten::nll_loss", "aten::logsumexp", "aten::exp", "aten::scatter"),
    "optimizer": ("aten::_fused_adamw", "aten::_foreach", "aten::linalg_vector_norm"),
    "copies and layout": ("aten::copy_", "aten::cat", "aten::index", "aten::fill_", "aten::zero_", "aten::clone"),
    "element by element": ("aten::mul", "aten::add", "aten::div", "aten::silu", "aten::gelu", "aten::pow", "aten::sub"),
}


def size_of(width: str, vocabulary: int) -> Size:
    """A small model of one width and vocabulary."""
    hidden, inner, layers, vision, vision_inner, vision_layers = WIDTHS[width]
    text = {"vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
    encoder = {"hidden_size": vision, "intermediate_size": vision_inner, "num_hidden_layers": vision_layers}
    return Size(
        text=text | heads,
        vision=encoder | {"num_attention_heads": 4},
        image_id=vocabulary - 12,
        video_id=vocabulary - 11,
        video=(1, 2, 2, 2),
        images=GRIDS,
        video_samples=1,
        matmul=256,
    )


def samples_of(size: Size, rank: int) -> list[Sample]:
    """One rank's samples of a step: an image each, and words of uneven number, of which the last 64 are answers."""
    generator, found = np.random.default_rng(rank), []
    for index in range(SAMPLES):
        rows, columns = GRIDS[index % len(GRIDS)]
        words = 64 + int(WORDS[0] + (WORDS[1] - WORDS[0]) * generator.random() ** 3)
        ids = generator.integers(0, size.image_id - 1, words)
        pixels = torch.from_numpy(generator.integers(0, 256, (rows * columns, 588), dtype=np.uint8))
        found.append(
            Sample(
                grid_I3=np.array([[1, rows, columns]]),
                merges_I=np.array([1]),
                pixels_PC=pixels,
                keep_M=np.ones(rows * columns, dtype=bool),
                ids_T=np.concatenate([np.full(rows * columns, size.image_id), ids]),
                is_video=False,
            )
        )
    return found


def our_step(size: Size, rank: int) -> Callable[[], None]:
    """A step of ours, as a stage takes it."""
    from vl3.config.stages import LearningRates
    from vl3.recipes.catalog import get_recipe
    from vl3.training.engine import TrainingEngine, start_process_group
    from vl3.training.optimizer_groups import freeze_parts, parameter_groups

    start_process_group(local_rank=rank, threads=1, seed=0)
    model, _ = make_models(size, torch.device("cpu"), torch.float32)
    rates = LearningRates(vision=1e-5, projector=1e-5, language=1e-5)
    freeze_parts(model.parts(), rates)
    recipe = get_recipe("tiny")
    config = replace(recipe, optimizer=replace(recipe.optimizer, max_grad_norm=1.0))
    engine = TrainingEngine(model, parameter_groups(model.parts(), rates, weight_decay=0.0), config, rows_per_rank=1)
    row = packed_row(samples_of(size, rank))

    def step() -> None:
        engine.set_learning_rates(1.0)
        engine.step([row], stop_requested=False)

    return step


def worker(way: str, width: str, vocabulary: int, steps: int, out: Path, profile: bool) -> None:
    """Measure one way in one rank; rank 0 writes seconds of a step and the shares of its time."""
    torch.set_num_threads(1)
    rank, size = int(os.environ["RANK"]), size_of(width, vocabulary)
    device = torch.device("cpu")
    if way == "ours":
        step = our_step(size, rank)
        for _ in range(WARM_UP_STEPS):
            step()
        started = time.perf_counter()
        for _ in range(steps):
            step()
        seconds = (time.perf_counter() - started) / steps
        shares = shares_of(step) if profile else {}
    else:
        _, theirs = make_models(size, device, torch.float32)
        make = their_batch if way == "padded" else their_packed
        batch = make(samples_of(size, rank), size, device, torch.float32)
        seconds = trainer_seconds(theirs, [batch], steps, recompute=False, on_cpu=True)

        def their_step() -> None:
            theirs(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-5, fused=True)
        shares = shares_of(their_step) if profile else {}
    if rank == 0:
        out.write_text(json.dumps({"seconds": seconds, "shares": shares}))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    os._exit(0)  # the Trainer's threads have nothing left to do, and waiting for them does not always end


def shares_of(step: Callable[[], None]) -> dict[str, float]:
    """Milliseconds of a step by kind of operation, of the operation itself; `the rest` has no kind."""
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    found = dict.fromkeys((*PARTS, "the rest"), 0.0)
    for event in profiler.key_averages():
        part = next((name for name, words in PARTS.items() if event.key.startswith(words)), "the rest")
        found[part] += event.self_cpu_time_total / 1000
    return found


def run(way: str, width: str, vocabulary: int, processes: int, steps: int, *, profile: bool) -> dict[str, Any]:
    """One measurement in processes of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
        command += ["-m", "benchmarks.train_cpu", "--worker", way, "--width", width, "--vocabulary", str(vocabulary)]
        command += ["--steps", str(steps), "--out", str(out), *(["--profile"] if profile else [])]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCHDYNAMO_DISABLE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if not out.is_file():
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        return json.loads(out.read_text())


def case_rows(case: tuple[str, int, int], steps: int, rounds: int) -> tuple[list[list[str]], str]:
    """The three ways at one width, vocabulary and number of processes, in turns; and where the time goes."""
    width, vocabulary, processes = case
    size = size_of(width, vocabulary)
    tokens = sum(len(sample.ids_T) for rank in range(processes) for sample in samples_of(size, rank))
    best: dict[str, dict[str, Any]] = {}
    for number in range(rounds):
        for way in WAYS:
            found = run(way, width, vocabulary, processes, steps, profile=number == 0 and processes == 1)
            if way not in best or found["seconds"] < best[way]["seconds"]:
                found["shares"] = found["shares"] or best.get(way, {}).get("shares", {})
                best[way] = found
    rows = []
    for way in WAYS:
        seconds = best[way]["seconds"]
        ratio = seconds / best["ours"]["seconds"]
        name = "ours" if way == "ours" else f"transformers' Trainer, {way}"
        rows.append([width, f"{vocabulary:,}", str(processes), name, f"{tokens / seconds:,.0f}", f"{ratio:.2f}"])
        print(*rows[-1], flush=True)
    return rows, _where(width, vocabulary, best)


def _where(width: str, vocabulary: int, best: dict[str, dict[str, Any]]) -> str:
    """A sentence on the parts of each way's step, or nothing without profiles."""
    if not best["ours"]["shares"]:
        return ""
    parts = "; ".join(
        f"{part} " + " / ".join(f"{best[way]['shares'][part]:.0f}" for way in WAYS) for part in best["ours"]["shares"]
    )
    return f"Width {width}, {vocabulary:,} words, one process, ms of a profiled step, ours / padded / packed: {parts}."


def main() -> None:
    """Measure and write the result, or be a worker of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", choices=WAYS)
    parser.add_argument("--width", choices=tuple(WIDTHS), default="256")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="one case only: shows that the script works")
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.width, options.vocabulary, options.steps, options.out, options.profile)
        return
    cases: Sequence[tuple[str, int, int]] = [
        (options.width, vocabulary, processes) for vocabulary in (4096, 8192, 32768) for processes in (1, 2)
    ]
    rows, notes = [], []
    for case in cases[:1] if options.small else cases:
        found, note = case_rows(case, options.steps, options.rounds)
        rows += found
        notes += [note] if note else []
    name = "train_cpu_trial" if options.small else f"train_cpu_{options.width}"
    write_result(
        name,
        title=f"Training on CPU against transformers' Trainer, width {options.width}"
        + (" (trial)" if options.small else ""),
        question="Same weights and samples: at least twice the tokens/s?",
        command=f"python -m benchmarks.train_cpu --width {options.width} --steps {options.steps} --rounds "
        f"{options.rounds}" + (" --small" if options.small else ""),
        columns=["width", "words", "processes", "way", "tokens/s", "time, ours = 1"],
        rows=rows,
        notes=[
            f"The best of {options.rounds} rounds of {options.steps} steps, the three ways in turns; {SAMPLES} samples "
            "a process and step, fp32, one thread a process. Tokens are those of the samples, without padding.",
            *notes,
        ],
        libraries=["torch", "transformers", "deepspeed"],
    )


if __name__ == "__main__":
    main()
