"""How much memory does `vl3 convert` take? `python -m benchmarks.convert_memory [--folder DIR]`."""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import write_result
from vl3.models.config import TextConfig, VideoLlama3Config, VisionConfig
from vl3.models.layouts.names import EMBEDDING, expected_shapes

MB = 1e6
CONFIG = VideoLlama3Config(
    vision=VisionConfig(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16),
    text=TextConfig(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=8,
        num_attention_heads=12,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=True,
    ),
    image_token_id=151665,
)
"""VideoLLaMA3-2B with 8 of its 28 decoder blocks: 2 GB in bf16, the same largest tensor."""
CHILD = """
import re, sys
from pathlib import Path
from vl3.cli.main import run
status = run(sys.argv[1:]) if len(sys.argv) > 1 else 0
print("VmHWM", re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(status)
"""


def write_source(folder: Path) -> tuple[int, int]:
    """A checkpoint of random bf16 bytes; returns (bytes of all tensors, bytes of the largest)."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    words = {f"word{index}": index for index in range(151643)}
    special = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
    special |= {f"<|reserved_{index}|>": index for index in range(151646, 151655)}
    special |= {"<|image_pad|>": 151655, "<|video_pad|>": 151656}
    special |= {f"<|reserved_{index}|>": index for index in range(151657, 151665)}
    added = [{"id": index, "content": token, "special": True} for token, index in special.items()]
    tokenizer = {"model": {"type": "BPE", "vocab": words, "merges": []}, "added_tokens": added}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    header, end = {}, 0
    for name, shape in expected_shapes(CONFIG).items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        left = end
        while left:
            left -= file.write(os.urandom(min(16 << 20, left)))
    return end, 2 * math.prod(header[EMBEDDING]["shape"])  # type: ignore[arg-type]


def peak_mb(arguments: list[str]) -> tuple[float, float]:
    """(peak memory of a process that runs the command line in MB, its seconds); an empty line only imports it."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024 / MB, time.perf_counter() - start


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=None, help="where 7 GB may be written temporarily")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as folder:
        ours, theirs, back = (str(Path(folder, name)) for name in ("ours", "theirs", "back"))
        size_bytes, largest_bytes = write_source(Path(ours))
        limit_mb = 2 * largest_bytes / MB + 200
        rows = [["the command line alone", "-", f"{peak_mb([])[0]:.0f}", f"{limit_mb:.0f}", "-"]]
        cases = [
            ("official to transformers, one file", [ours, theirs, "--to", "transformers"]),
            ("transformers to official, shards of 500 MB", [theirs, back, "--to", "official"]),
        ]
        for index, (label, arguments) in enumerate(cases):
            shards = ["--max-shard-bytes", "500000000"] if index else []
            peak, seconds = peak_mb(["convert", *arguments, *shards])
            rows.append([label, f"{size_bytes / MB:.0f}", f"{peak:.0f}", f"{limit_mb:.0f}", f"{seconds:.1f}"])
            print(*rows[-1])
    write_result(
        "convert_memory",
        title="Conversion needs little memory",
        question="Peak memory of `vl3 convert`, including the interpreter. Limit: twice the largest tensor plus "
        "200 MB.",
        command="python -m benchmarks.convert_memory",
        columns=["conversion", "tensors MB", "peak MB", "limit MB", "seconds"],
        rows=rows,
        notes=[
            "VideoLLaMA3-2B's encoder, projector and embedding with 8 of 28 decoder blocks, random bf16 bytes; the "
            f"largest tensor is the embedding with {largest_bytes / MB:.0f} MB.",
            "Peak is VmHWM of the process. Tensors are copied in chunks of 8 MiB whatever their size; most of the "
            "memory is the vocabulary of 151,668 words.",
        ],
    )


if __name__ == "__main__":
    main()
