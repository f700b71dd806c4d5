"""What the planner says against what is measured: `python -m benchmarks.planner` (`--quick` for a few cases).

Small models train for real, in processes of their own, under each ZeRO stage, recomputation, precision and offload.
Memory is what torch's allocator holds at most in a step (on CPU by its profiler, on a GPU by its own counter); time is
CPU time of one rank on CPU, so that other work on the machine counts little, and wall time on a GPU. On CPU the rates
of products, attention and traffic are measured first, on one block of the same model; a GPU's are those of
vl3.planning.devices.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from benchmarks.record import ROOT, write_result
from vl3.models.config import TextConfig, VideoLlama3Config, VisionConfig
from vl3.planning.devices import Device, device_names, get_device
from vl3.planning.flops import row_flops
from vl3.planning.memory import stage_memory
from vl3.planning.parameters import TrainedParts
from vl3.planning.shapes import RowShape
from vl3.planning.sharding import Sharding
from vl3.planning.time import block_traffic, step_time

IMAGE_ID = 8000
MEMORY_TARGET, TIME_TARGET = 0.10, 0.20


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run."""

    zero_stage: int
    ranks: int = 1
    precision: str = "fp32"
    recompute: str = "none"
    offload: bool = False
    rows: int = 1
    frozen: bool = False
    """Whether the language model is frozen, as in stage 1."""

    @property
    def trained(self) -> TrainedParts:
        """What it trains."""
        return TrainedParts(vision=True, projector=True, language=not self.frozen)

    def sharding(self, *, is_gpu: bool) -> Sharding:
        """The planner's words for it."""
        return Sharding(
            zero_stage=self.zero_stage,
            ranks=self.ranks,
            precision=self.precision,
            recompute=self.recompute,  # type: ignore[arg-type]
            offload_optimizer=self.offload,
            rows_per_rank=self.rows,
            is_gpu=is_gpu,
        )


CASES = [
    Case(zero_stage=0),
    Case(zero_stage=1),
    Case(zero_stage=2),
    Case(zero_stage=3),
    Case(zero_stage=0, precision="bf16"),
    Case(zero_stage=1, precision="bf16"),
    Case(zero_stage=2, precision="bf16"),
    Case(zero_stage=0, recompute="selective"),
    Case(zero_stage=0, recompute="full"),
    Case(zero_stage=2, precision="bf16", recompute="full"),
    Case(zero_stage=0, frozen=True),
    Case(zero_stage=2, precision="bf16", frozen=True, recompute="full"),
    Case(zero_stage=1, rows=2),
    Case(zero_stage=2, precision="bf16", rows=2),
    Case(zero_stage=1, ranks=2),
    Case(zero_stage=2, ranks=2, precision="bf16"),
    Case(zero_stage=3, ranks=2),
    Case(zero_stage=1, offload=True),
    Case(zero_stage=2, offload=True, precision="bf16"),
]
QUICK = [CASES[0], CASES[6], CASES[8], CASES[10], CASES[15]]


def model_config(*, is_gpu: bool) -> VideoLlama3Config:
    """A small model; on a GPU with the widths of the 2B model and few blocks."""
    text: dict[str, Any] = {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6}
    text |= {"tie_word_embeddings": True, "num_hidden_layers": 6, "num_key_value_heads": 2}
    if is_gpu:
        text |= {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12}
        vision = VisionConfig(hidden_size=1152, intermediate_size=4304, num_hidden_layers=6, num_attention_heads=16)
    else:
        text |= {"vocab_size": 8192, "hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 4}
        vision = VisionConfig(hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4)
    return VideoLlama3Config(vision=vision, text=TextConfig(**text), image_token_id=IMAGE_ID)


def make_row(seed: int, *, is_gpu: bool) -> Any:
    """A row of samples with one image each."""
    import numpy as np

    from vl3.data.loader.rows import PackedRow

    rng = np.random.default_rng(seed)
    samples, side, words = (8, 32, 300) if is_gpu else (6, 8, 100)
    patches = side * side
    ids = [np.concatenate([np.full(patches, IMAGE_ID), rng.integers(0, IMAGE_ID, words)]) for _ in range(samples)]
    labels = [np.where(np.arange(len(one)) < patches, -100, one) for one in ids]
    return PackedRow(
        input_ids_T=np.concatenate(ids),
        labels_T=np.concatenate(labels),
        position_ids_T=np.concatenate([np.arange(len(one)) for one in ids]),
        cu_seqlens=np.cumsum([0, *map(len, ids)]),
        pixels_PC=rng.integers(0, 256, (patches * samples, 588), dtype=np.uint8),
        grid_thw_I3=np.array([[1, side, side]] * samples),
        merge_sizes_I=np.ones(samples, dtype=np.int64),
        keep_M=np.ones(patches * samples, dtype=np.bool_),
        sample_ids=tuple(map(str, range(samples))),
        visual_tokens=patches * samples,
        visual_tokens_kept=patches * samples,
    )


def row_shape(*, is_gpu: bool) -> RowShape:
    """The size of that row."""
    from vl3.planning.row_shapes import shape_of_row

    return shape_of_row(make_row(0, is_gpu=is_gpu))


def run_worker(case: Case) -> dict[str, float]:
    """One rank: train, and measure memory and time of a step."""
    import torch

    from vl3.config.overrides import apply_overrides
    from vl3.config.stages import LearningRates
    from vl3.models.model import VideoLlama3
    from vl3.recipes.catalog import get_recipe
    from vl3.training.engine import TrainingEngine, start_process_group, stop_process_group
    from vl3.training.optimizer_groups import freeze_parts, parameter_groups

    rank, is_gpu = int(os.environ["RANK"]), torch.cuda.is_available()
    start_process_group(local_rank=rank, threads=1, seed=0)
    settings = {"zero_stage": case.zero_stage, "precision": case.precision, "recompute": case.recompute}
    overrides = [f"engine.{name}={value}" for name, value in settings.items()]
    config = apply_overrides(get_recipe("tiny"), [*overrides, f"engine.offload_optimizer={str(case.offload).lower()}"])
    rates = LearningRates(vision=1e-4, projector=1e-4, language=None if case.frozen else 1e-4)
    rows = [make_row(rank * 100 + number, is_gpu=is_gpu) for number in range(case.rows)]

    def build() -> TrainingEngine:
        model = VideoLlama3(model_config(is_gpu=is_gpu))
        freeze_parts(model.parts(), rates)
        groups = parameter_groups(model.parts(), rates, weight_decay=0.0)
        return TrainingEngine(model, groups, config, rows_per_rank=case.rows)

    peak, engine = _gpu_peak(build, rows) if is_gpu else _cpu_peak(build, rows)
    clock = time.perf_counter if is_gpu else time.process_time
    seconds, parts = [], []
    for _ in range(10):
        started = clock()
        parts.append(engine.step(rows, stop_requested=False).seconds)
        seconds.append(clock() - started)
    stop_process_group()
    wall = {f"wall_{name}": sorted(part[name] for part in parts)[len(parts) // 2] for name in parts[0]}
    return {"peak_bytes": peak, "seconds": min(seconds)} | wall


def _cpu_peak(build: Callable[[], Any], rows: list[Any]) -> tuple[float, Any]:
    """Most bytes that tensors hold in the second step: from each allocation and release that the profiler sees."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        engine = build()
        engine.set_learning_rates(1.0)
        engine.step(rows, stop_requested=False)
        second = time.time_ns()
        engine.step(rows, stop_requested=False)
    assert profiler.profiler is not None
    found = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(found, key=lambda event: event.start_ns()):
        held += event.nbytes()
        if event.start_ns() >= second:
            peak = max(peak, held)
    return float(peak), engine


def _gpu_peak(build: Callable[[], Any], rows: list[Any]) -> tuple[float, Any]:
    import torch

    engine = build()
    engine.set_learning_rates(1.0)
    engine.step(rows, stop_requested=False)
    torch.cuda.reset_peak_memory_stats()
    engine.step(rows, stop_requested=False)
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated()), engine


def measure(case: Case) -> dict[str, float]:
    """Run a case in processes of its own; the result of rank 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "benchmarks.planner", "--worker", json.dumps(asdict(case))]
    shared = {"WORLD_SIZE": str(case.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    ranks = []
    for rank in range(case.ranks):
        variables = os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        ranks.append(
            subprocess.Popen(
                command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    outputs = [process.communicate() for process in ranks]
    lines = [line for line in outputs[0][0].splitlines() if line.startswith('{"peak_bytes"')]
    if not lines:
        raise RuntimeError(f"{case} measured nothing:\n{outputs[0][1][-2000:]}")
    return json.loads(lines[-1])


def measure_cpu(precision: str) -> Device:
    """What one core reaches in the products, attention and other operations of one block of the small model."""
    import torch

    from vl3.models.attention import Segments, attend
    from vl3.models.decoder import DecoderLayer, Reach, rotary_frequencies
    from vl3.models.rotary import tables_of
    from vl3.planning.parameters import decoder_linears

    torch.set_num_threads(1)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    text, shape = model_config(is_gpu=False).text, row_shape(is_gpu=False)
    tokens = int(shape.length_tokens)
    segments = Segments.of_similar([tokens // 6] * 6)
    hidden = torch.randn(tokens, text.hidden_size, dtype=dtype)
    products = 0.0
    for inputs, outputs in decoder_linears(text).values():
        x = torch.randn(tokens, inputs, dtype=dtype, requires_grad=True)
        weight = torch.randn(outputs, inputs, dtype=dtype, requires_grad=True)
        there = torch.ones(tokens, outputs, dtype=dtype)
        products += _seconds(partial(_linear, x, weight, there))
    heads, head_dim = text.num_attention_heads, text.hidden_size // text.num_attention_heads
    q = torch.randn(tokens, heads, head_dim, dtype=dtype, requires_grad=True)
    k, v = (torch.randn(tokens, text.num_key_value_heads, head_dim, dtype=dtype, requires_grad=True) for _ in range(2))
    there = torch.ones(tokens, heads, head_dim, dtype=dtype)
    attention = _seconds(lambda: attend(q, k, v, segments, causal=True).backward(there))
    layer = DecoderLayer(text, 0).to(dtype)
    positions = torch.arange(tokens).float()
    rotary = tables_of(positions[:, None] * rotary_frequencies(head_dim, text.rope_theta, hidden.device))
    inputs_TD = hidden.clone().requires_grad_()
    whole = _seconds(lambda: layer(inputs_TD, rotary, Reach(segments=segments)).backward(hidden))
    one = VideoLlama3Config(
        vision=model_config(is_gpu=False).vision,
        text=TextConfig(**asdict(text) | {"num_hidden_layers": 1}),
        image_token_id=0,
    )
    flops = row_flops(one, TrainedParts(vision=True, projector=True, language=True), [shape])
    moved = block_traffic(text, shape, precision, is_gpu=False)
    peak = flops.parts["decoder"].computed / products
    return Device(
        name="cpu",
        title=f"one core, {precision}",
        bf16_flops_per_second=peak,
        fp32_flops_per_second=peak,
        memory_gib=1.0,
        memory_bytes_per_second=moved / max(whole - products - attention, 0.05 * whole),
        link_bytes_per_second=2e9,
        source="measured on one block",
        product_share=1.0,
        attention_share=flops.parts["decoder_attention"].computed / attention / peak,
        bandwidth_share=1.0,
    )


def _linear(x: Any, weight: Any, gradient: Any) -> None:
    from torch.nn import functional

    functional.linear(x, weight).backward(gradient)


def _seconds(call: Callable[[], object]) -> float:
    """CPU seconds of a call: the least of some, after one to warm up; others on the machine only add to it."""
    call()
    found = []
    for _ in range(20):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


def gpu_device() -> Device:
    """The planner's figures for this machine's GPU."""
    import torch

    name = torch.cuda.get_device_name(0).lower()
    known = next((one for one in device_names() if one in name.replace(" ", "-")), None)
    if known is None:
        raise RuntimeError(f"the planner does not know {name!r}; add it to vl3.planning.devices")
    return get_device(known)


def compare(case: Case, found: dict[str, float], device: Device, *, is_gpu: bool) -> dict[str, Any]:
    """Planned and measured, and how far apart they are."""
    model, shape, sharding = model_config(is_gpu=is_gpu), row_shape(is_gpu=is_gpu), case.sharding(is_gpu=is_gpu)
    memory = stage_memory(model, case.trained, shape, sharding)
    planned_bytes = memory.peak + (0.0 if is_gpu else memory.offloaded)  # on CPU the host is the device
    step = step_time(model, case.trained, shape, sharding, device, ranks_per_node=case.ranks)
    planned_seconds = step.seconds
    return {
        "case": asdict(case),
        "planned_bytes": planned_bytes,
        "measured_bytes": found["peak_bytes"],
        "memory_error": planned_bytes / found["peak_bytes"] - 1,
        "planned_seconds": planned_seconds,
        "measured_seconds": found["seconds"],
        "time_error": planned_seconds / found["seconds"] - 1,
        "planned_parts": dict(step.parts),
        "measured_parts": {name: value for name, value in found.items() if name.startswith("wall_")},
    }


def main() -> None:
    """Measure all cases and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases, and write nothing")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(run_worker(Case(**json.loads(arguments.worker)))))
        return
    import torch

    is_gpu = torch.cuda.is_available()
    cases = [case for case in (QUICK if arguments.quick else CASES) if not is_gpu or case.precision == "bf16"]
    cases = [case for case in cases if not is_gpu or case.ranks <= torch.cuda.device_count()]
    devices = {kind: gpu_device() if is_gpu else measure_cpu(kind) for kind in {case.precision for case in cases}}
    results = []
    for case in cases:
        result = compare(case, measure(case), devices[case.precision], is_gpu=is_gpu)
        print(json.dumps(result), flush=True)
        results.append(result)
    if not arguments.quick:
        _write(results, "planner_gpu" if is_gpu else "planner", is_gpu=is_gpu)


def _write(results: list[dict[str, Any]], name: str, *, is_gpu: bool) -> None:
    rows = []
    for one in results:
        case = Case(**one["case"])
        words = f"{case.sharding(is_gpu=is_gpu).describe()}, {case.precision}, {case.ranks} rank(s), {case.rows} row(s)"
        planned, measured = (f"{one[f'{kind}_bytes'] / 1e6:,.1f}" for kind in ("planned", "measured"))
        seconds = (f"{one[f'{kind}_seconds']:.3f}" for kind in ("planned", "measured"))
        row = [words + (", frozen language model" if case.frozen else ""), planned, measured]
        rows.append([*row, f"{one['memory_error']:+.1%}", *seconds, f"{one['time_error']:+.1%}"])
    worst = {kind: max(abs(one[f"{kind}_error"]) for one in results) for kind in ("memory", "time")}
    write_result(
        name,
        title="What the planner says against what is measured" + (" on a GPU" if is_gpu else ""),
        question="How far are planned memory and time of a step from those of real training?",
        command="python -m benchmarks.planner",
        columns=["case", "MB planned", "MB measured", "error", "s planned", "s measured", "error"],
        rows=rows,
        notes=[
            f"Largest errors: memory {worst['memory']:.1%} (at most {MEMORY_TARGET:.0%} is the aim), time "
            f"{worst['time']:.1%} (at most {TIME_TARGET:.0%}).",
            "Memory is what tensors hold at most in a step after the first; time is the least of ten steps, "
            + ("wall time." if is_gpu else "CPU time of rank 0, whose rates were measured on one block just before."),
        ],
        libraries=["torch", "deepspeed"],
    )


if __name__ == "__main__":
    main()
