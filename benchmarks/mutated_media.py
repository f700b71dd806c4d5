"""Damaged pictures and videos through the real dataset build and through the loader's reading.

Each of 600 files is an intact picture or video with a change that follows from a seed. Asked of each: no traceback, no
hang, no process above 1 GiB, no socket, and what is kept as good is good for ffmpeg's own program.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.record import write_result
from tests.support.ffmpeg import is_broken
from tests.support.mutations import make_intact, mutated
from tests.support.samples import conversation, write_data_folder
from vl3.config.data import DataConfig
from vl3.data.build.dataset import build_dataset
from vl3.data.build.index import DatasetIndex
from vl3.data.build.shards import ShardReader
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.media import file_media
from vl3.data.sample.prepare import PrepareSettings, prepare_sample
from vl3.data.sample.records import Record, read_annotations
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import DataError
from vl3.toy.tokenizer import build_tokenizer

FILES = 600
SLOW_SECONDS = 20.0
NETWORK_CALL = re.compile(r"\b(socket\(AF_INET|socket\(AF_NETLINK|connect\(|bind\()")
CONFIG = DataConfig(
    max_length_tokens=4096,
    visual_budget_tokens=2048,
    max_row_visual_tokens=2048,
    min_item_tokens=4,
    video_fps=1.0,
    max_frames=16,
    difffp_threshold=0.1,
    difffp_min_tokens=1,
    max_bad_fraction=0.0,
    holdout_fraction=0.0,
    build_workers=2,
)


def make_data(folder: Path, count: int) -> None:
    """A data folder of `count` damaged files, one sample each."""
    intact = make_intact(folder / "intact")
    names, contents = list(intact), list(intact.values())
    lines: list[dict[str, Any]] = []
    files = {}
    for number in range(count):
        name = names[number % len(names)]
        path = f"media/{number:04d}-{name}"
        files[path] = mutated(intact[name], contents[(number * 7) % len(names)], f"{number}")
        kind, tag = ("image", "<image>") if name.startswith("picture") else ("video", "<video>")
        lines.append({"id": path, kind: [path], "conversations": conversation(f"{tag} What?", "A pattern.")})
    write_data_folder(folder / "data", train=lines, files=files)


def tokenizer_in(folder: Path) -> ChatTokenizer:
    """The tiny recipe's tokenizer."""
    build_tokenizer(folder / "tokenizer")
    return ChatTokenizer.from_folder(folder / "tokenizer")


def run_build(folder: Path) -> None:
    """Build the dataset with two processes; prints their peak memory."""
    start = time.monotonic()
    build_dataset(
        folder / "data",
        folder / "dataset",
        config=CONFIG,
        tokenizer=tokenizer_in(folder),
        prune=keep_mask,
        workers=CONFIG.build_workers,
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"peak_mb": peak // 1024, "seconds": time.monotonic() - start}))


def run_reading(folder: Path) -> None:
    """Prepare every file as the loader does, those that the build refused as well; prints what happened."""
    tokenizer = ChatTokenizer.from_folder(folder / "tokenizer")
    settings = PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=True, data=CONFIG)
    index = DatasetIndex.read(folder / "dataset")
    reader, slowest, refused = ShardReader(folder / "dataset", index), 0.0, 0
    for row in index.usable_rows("train"):
        record, media = reader.read(int(row))
        prepare_sample(record, media, tokenizer, settings, keep_mask)
    for line in read_annotations(folder / "data" / "annotations" / "train.jsonl", "train"):
        assert isinstance(line, Record)
        start = time.monotonic()
        media = {path: file_media(folder / "data" / path) for path in line.media_paths}
        try:
            prepare_sample(line, media, tokenizer, settings, keep_mask)
        except DataError:
            refused += 1
        slowest = max(slowest, time.monotonic() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak_mb": peak // 1024, "slowest_seconds": slowest, "refused": refused}))


def watched(action: str, folder: Path) -> tuple[dict[str, Any], int]:
    """Run an action in its own process under strace; what it printed, and how many network calls it made."""
    log = folder / f"{action}.strace"
    command = ["strace", "-f", "-qq", "-e", "trace=%network", "-o", str(log), sys.executable, "-m"]
    done = subprocess.run(
        [*command, "benchmarks.mutated_media", "--action", action, "--folder", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or "Traceback" in done.stderr:
        raise RuntimeError(f"{action} ended with {done.returncode}: {done.stderr[-2000:]}")
    calls = sum(bool(NETWORK_CALL.search(line)) for line in log.read_text(encoding="utf-8").splitlines())
    return json.loads(done.stdout.splitlines()[-1]), calls


def measure(folder: Path, count: int) -> None:
    """Run all and write the result."""
    make_data(folder, count)
    build, build_calls = watched("build", folder)
    reading, reading_calls = watched("read", folder)
    table = DatasetIndex.read(folder / "dataset").table.to_pylist()
    kept = [row["sample_id"] for row in table if row["problem"] is None]
    died = [row for row in table if row["problem"] and ("the decoder" in row["problem"])]
    names = [row["sample_id"] for row in table]
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(names, pool.map(lambda name: is_broken(folder / "data" / name), names), strict=True))
    broken = [name for name in kept if found[name]]
    refused = [name for name in names if name not in kept]
    good_for_ffmpeg = [name for name in refused if not found[name]]
    print(*broken, sep="\n")
    print(*[f"{row['sample_id']}: {row['problem']}" for row in died], sep="\n")
    print(Counter(name.split("-", 1)[1] for name in kept))
    write_result(
        "mutated_media",
        title=f"{count} damaged pictures and videos",
        question="Does any damaged file end the dataset build or the loader, hang it, take more than 1 GiB, open a "
        "socket, or pass as good although ffmpeg's own program reports an error?",
        command="python -m benchmarks.mutated_media",
        columns=["what", "measured", "limit"],
        rows=[
            ["files", count, ""],
            ["refused by the build, each with its reason", len(refused), ""],
            ["refused though ffmpeg's program reports nothing", len(good_for_ffmpeg), ""],
            ["kept", len(kept), ""],
            ["kept though ffmpeg's program reports an error", len(broken), 0],
            ["tracebacks", 0, 0],
            ["decoders that crashed or were ended for their time", len(died), 0],
            ["slowest file, as the loader prepares it", f"{reading['slowest_seconds']:.1f} s", f"{SLOW_SECONDS:.0f} s"],
            ["peak memory of a process of the build", f"{build['peak_mb']} MB", "1024 MB"],
            ["peak memory of the reading process", f"{reading['peak_mb']} MB", "1024 MB"],
            ["network calls of both", build_calls + reading_calls, 0],
        ],
        notes=[
            "Intact files of 19 containers and codecs and 7 picture formats; flipped bits, zeros, cuts, splices, "
            "edited headers and extreme numbers, from a seed.",
            "The comparison is `ffmpeg -v error -xerror -i FILE -an -sn -dn -f null -`: a file is broken if it ends "
            "with an error or prints a line. Sound and subtitles are not looked at, because they are not used.",
            "Network calls: socket (AF_INET, AF_INET6, AF_NETLINK), connect and bind, counted by strace in all "
            "processes.",
        ],
        libraries=["av", "pillow", "numpy"],
    )


def main() -> None:
    """Measure, or run one of the two watched actions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--action", choices=("build", "read"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.action:
        {"build": run_build, "read": run_reading}[options.action](options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(options.folder or Path(folder), options.files)


if __name__ == "__main__":
    main()
