"""How much memory and time does a rank need to load its model? `python -m benchmarks.load [--size small]`.

Each case is a process of its own (under ZeRO-3 one of several, all on this machine): its peak of memory above what it
had before loading, over the bytes of the parameters that it keeps. Beside it, what the same weights take when all are
read with safetensors' `load_file` and then converted.
"""

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import write_result
from vl3.models.config import TextConfig, VideoLlama3Config, VisionConfig
from vl3.models.layouts.names import expected_shapes

LIMIT = 1.2
SIZES = {"small": (2, 512, 1024, 2, 8_192), "2b": (27, 1536, 8960, 28, 151_936)}
"""Encoder blocks, decoder width, its inner width, decoder blocks, words."""
CHILD = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
import torch
from vl3.training.engine import start_process_group, stop_process_group
import os
folder, zero_stage, precision, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
start_process_group(local_rank=int(os.environ["LOCAL_RANK"]), threads=1, seed=0)
from vl3.models.unread import unread_model
from vl3.recipes.catalog import get_recipe
from vl3.training.loading import load
tiny = get_recipe("tiny")
config = replace(tiny, engine=replace(tiny.engine, zero_stage=zero_stage, precision=precision))
facts = lambda name: int(next(x for x in open("/proc/self/status") if x.startswith(name)).split()[1]) * 1024
unread = unread_model(folder)
unread.empty()
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before, started, wall = facts("VmRSS"), time.process_time(), time.perf_counter()
if how == "ours":
    model = load(unread, config, torch.device("cpu"))
    own = sum(getattr(p, "ds_tensor", p).numel() * p.element_size() for p in model.parameters())
else:
    from safetensors.torch import load_file
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    model = {n: t.to(dtype) for n, t in load_file(folder / "model.safetensors").items()}
    own = sum(t.numel() * t.element_size() for t in model.values())
peak = facts("VmHWM") - before
print("RESULT", json.dumps({"own": own, "peak": peak, "cpu": time.process_time() - started,
                            "wall": time.perf_counter() - wall}))
stop_process_group()
"""


def config_of(size: str) -> VideoLlama3Config:
    """The sizes of a model."""
    vision_layers, width, inner, layers, words = SIZES[size]
    vision = VisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=vision_layers, num_attention_heads=16
    )
    text = TextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=True,
    )
    return VideoLlama3Config(vision=vision, text=text, image_token_id=words - 1)


def write_model(folder: Path, config: VideoLlama3Config) -> int:
    """A checkpoint of zeros in fp32, as SigLIP is released; returns its bytes."""
    header, end = {}, 0
    for name, shape in expected_shapes(config).items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for place in range(0, end, 16 << 20):
            file.write(bytes(min(16 << 20, end - place)))
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return end


def measure(folder: Path, zero_stage: int, precision: str, ranks: int, how: str) -> list[dict[str, Any]]:
    """Load in `ranks` processes at once; returns what each measured."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHDYNAMO_DISABLE": "1",
    }
    command = [sys.executable, "-c", CHILD, str(folder), str(zero_stage), precision, how]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    outputs = [process.communicate()[0] for process in processes]
    return [json.loads(next(x for x in text.splitlines() if x.startswith("RESULT"))[7:]) for text in outputs]


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="2b")
    parser.add_argument("--folder", type=Path, default=None, help="where the model may be written temporarily")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        size_bytes = write_model(Path(folder), config_of(given.size))
        for label, zero_stage, precision, ranks, how in (
            ("ZeRO 1, bf16", 1, "bf16", 1, "ours"),
            ("ZeRO 3, bf16", 3, "bf16", 2, "ours"),
            ("ZeRO 3, bf16", 3, "bf16", 4, "ours"),
            ("ZeRO 3, fp32", 3, "fp32", 2, "ours"),
            ("load_file, then bf16", 1, "bf16", 1, "theirs"),
        ):
            found = max(measure(Path(folder), zero_stage, precision, ranks, how), key=lambda one: one["peak"])
            ratio = found["peak"] / found["own"]
            rate = size_bytes / ranks / 1e6 / found["cpu"] if zero_stage == 3 else size_bytes / 1e6 / found["cpu"]
            judged = ("yes" if ratio < LIMIT else "NO") if how == "ours" else "-"
            rows.append(
                [label, ranks, f"{found['own'] / 1e6:.0f}", f"{found['peak'] / 1e6:.0f}", f"{ratio:.2f}", judged,
                 f"{found['cpu']:.2f}", f"{rate:.0f}"]
            )  # fmt: skip
            print(*rows[-1])
    write_result(
        "load",
        title="Loading a model takes a rank hardly more memory than its share",
        question=f"Peak of host memory above the process before loading, over the bytes that the rank keeps: under "
        f"{LIMIT}? Model {given.size}, {size_bytes / 1e9:.2f} GB in fp32 on disk, on CPU.",
        command=f"python -m benchmarks.load --size {given.size}",
        columns=["case", "ranks", "share MB", "peak MB", "peak / share", f"under {LIMIT}", "CPU s", "MB/s a CPU s"],
        rows=rows,
        notes=[
            "The worst rank of each case. On a GPU the share is in its own memory, and the host holds one chunk of "
            "16 MiB.",
            "The last row is the usual way: safetensors' load_file (which maps the file), then a conversion.",
        ],
    )


if __name__ == "__main__":
    main()
