"""Kill the build of 100,000 small samples at 20 random moments, and compare its end with a build left alone.

`python -m benchmarks.build_chaos [--samples 100000] [--kills 20] [--workers 4] [--seed 0]`. Which units were made
anew is seen on the disk: a unit appears by one rename of its folder, so a second making has another inode.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.record import write_result
from vl3.config.overrides import apply_overrides
from vl3.data.build.of_run import build_for_run
from vl3.recipes.catalog import get_recipe
from vl3.system.folders import partial_of
from vl3.system.uris import file_uri
from vl3.toy.tokenizer import build_tokenizer

PICTURES, PICTURE_PX, PICTURE_EACH = 50, 32, 10
_LOOK_SECONDS = 0.05
_AT_START = 0.25


def main() -> int:
    """Build, kill, compare, and write benchmarks/results/build_chaos.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "OUT"))
    options = parser.parse_args()
    if options.child:
        _build(Path(options.child[0]), Path(options.child[1]), options.workers)
        return 0
    with tempfile.TemporaryDirectory() as place:
        build_tokenizer(Path(place, "tokenizer"))
        _write_samples(Path(place, "data"), options.samples)
        chaos = _Chaos(Path(place), options)
        alone = chaos.leave_alone()
        killed = chaos.kill()
    assert alone == killed, "the builds differ"
    assert not chaos.made_again, f"made again: {sorted(chaos.made_again)}"
    write_result(
        "build_chaos",
        title="A build that is killed",
        question=f"{options.samples:,} small samples (texts, each tenth with a picture) in {options.workers} "
        f"processes, killed at {options.kills} random moments: are the bytes those of a build left alone, and is "
        "anything made again but what was at work?",
        command=f"python -m benchmarks.build_chaos --samples {options.samples} --kills {options.kills} "
        f"--workers {options.workers} --seed {options.seed}",
        columns=["kills", "files that differ", "units", "whole units that were made again", "at work when killed"],
        rows=[[str(chaos.kills), f"0 of {len(alone)}", f"{chaos.units:,}", "0", str(chaos.at_work)]],
        notes=[
            f"Seed {options.seed}. Left alone the build took {chaos.seconds:.0f} s; the kill is SIGKILL to the process "
            "that was started, whose workers end with it.",
            f"Units that were there at the kills, in order: {', '.join(str(count) for count in chaos.found)}.",
        ],
    )
    return 0


class _Chaos:
    def __init__(self, place: Path, options: argparse.Namespace) -> None:
        self._place, self._options = place, options
        self._random = random.Random(options.seed)
        self._inodes: dict[str, int] = {}
        self.made_again: set[str] = set()
        self.found: list[int] = []
        self.kills = self.at_work = self.units = 0
        self.seconds = self._start_seconds = 0.0

    def leave_alone(self) -> dict[str, str]:
        """Build once; returns the digests of the files."""
        out, start = self._place / "alone", time.monotonic()
        child = self._start(out)
        while not self._whole(out) and child.poll() is None:
            time.sleep(_LOOK_SECONDS)
        self._start_seconds = time.monotonic() - start
        assert child.wait() == 0
        self.seconds = time.monotonic() - start
        return _digests(out)

    def kill(self) -> dict[str, str]:
        """Build with kills; returns the digests of the files."""
        out = self._place / "killed"
        between = 0.5 * (self.seconds - self._start_seconds) / self._options.kills
        while self.kills < self._options.kills:
            child = self._start(out)
            self._wait_for_more(out, child)
            self._look_for(out, child, self._random.uniform(0, between))
            os.kill(child.pid, signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL, "the build was done before the last kill"
            self.kills += 1
            time.sleep(1)  # the workers end with their parent
            self._note(out)
            self.found.append(len(self._inodes))
            self.at_work += len(list(partial_of(out).glob("work/units/.*")))
            print(f"kill {self.kills}: {len(self._inodes)} units are there", flush=True)
        child = self._start(out)
        self._look_for(out, child, float("inf"))
        assert child.wait() == 0
        self.units = len(list(out.glob("*.tar")))
        return _digests(out)

    def _start(self, out: Path) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "benchmarks.build_chaos", "--workers", str(self._options.workers)]
        return subprocess.Popen([*command, "--child", str(self._place / "data"), str(out)])

    def _wait_for_more(self, out: Path, child: "subprocess.Popen[bytes]") -> None:
        """Wait for another unit, except each fourth time: that kill hits the start."""
        if self._random.random() < _AT_START:
            self._look_for(out, child, self._random.uniform(0, self._start_seconds))
            return
        before = len(self._inodes)
        while len(self._inodes) == before and child.poll() is None:
            self._look_for(out, child, _LOOK_SECONDS)

    def _look_for(self, out: Path, child: "subprocess.Popen[bytes]", seconds: float) -> None:
        """Watch the units until the time is over or the build ends."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and child.poll() is None:
            time.sleep(min(_LOOK_SECONDS, max(0.0, end - time.monotonic())))
            self._note(out)

    def _note(self, out: Path) -> None:
        for name, inode in self._whole(out).items():
            if self._inodes.setdefault(name, inode) != inode:
                self.made_again.add(name)
                self._inodes[name] = inode

    @staticmethod
    def _whole(out: Path) -> dict[str, int]:
        """Inode of the folder of each unit that is there."""
        try:
            with os.scandir(partial_of(out) / "work" / "units") as entries:
                return {entry.name: entry.inode() for entry in entries if not entry.name.startswith(".")}
        except FileNotFoundError:
            return {}


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def _build(folder: Path, out: Path, workers: int) -> None:
    config = apply_overrides(get_recipe("tiny"), [f"data.build_workers={workers}"])
    build_for_run(file_uri(folder), out, config, tokenizer_folder=folder.parent / "tokenizer", identity="chaos")


def _write_samples(folder: Path, count: int) -> None:
    """A data folder of small samples; some lines share pictures, one in a thousand names a file that is not there."""
    (folder / "annotations").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        pixels = rng.integers(0, 256, (PICTURE_PX, PICTURE_PX, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    with (folder / "annotations" / "train.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            line = {"id": f"s{number}", "conversations": _turns(number)}
            if number % PICTURE_EACH == 0:
                line["image"] = ["none.png" if number % 1000 == 0 else f"{number // PICTURE_EACH % PICTURES}.png"]
            file.write(json.dumps(line) + "\n")


def _turns(number: int) -> list[dict[str, str]]:
    tag = "<image>\n" if number % PICTURE_EACH == 0 else ""
    return [{"from": "human", "value": f"{tag}Write {number}."}, {"from": "gpt", "value": f"{number}."}]


if __name__ == "__main__":
    sys.exit(main())
