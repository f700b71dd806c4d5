"""The loader of a training process against a bare loop that decodes the same samples; from disk and from an S3 server.

`python -m benchmarks.loader [--copies 24] [--rounds 3] [--processes 2]`; needs ../shared/media and SeaweedFS's binary.
The bare loop is as many processes that take one sample after the other, read it from disk, check its digest, prepare it
and drop it: nothing is packed, shared or ordered. Loops and loaders run in turns, each from the start of its processes
to the last sample. A hanging sample and a consumer that is slower than the decoders are tried with the same samples.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mutated_media import tokenizer_in
from benchmarks.record import ROOT, write_result
from tests.support.plans import make_request
from tests.support.samples import conversation, grey_frames, video_bytes, write_data_folder
from tests.support.weed_server import ACCOUNTS, BUCKET, join_server
from vl3.data.build.dataset import build_dataset
from vl3.data.build.shards import ShardSpan, read_sample
from vl3.data.loader.decoder import DecoderSetup
from vl3.data.loader.ledger import Ledger
from vl3.data.loader.stage_loader import StageLoader
from vl3.data.plan.planner import plan_stage
from vl3.data.plan.stage_plan import StagePlan
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.prepare import PrepareSettings, prepare_sample
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.recipes.catalog import get_recipe
from vl3.store.objects import open_store

MEDIA = ROOT.parent / "shared" / "media"
CONFIG = replace(get_recipe("vl3_2b").data, holdout_fraction=0.0, build_workers=2)
SETTINGS = PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=True, data=CONFIG)
DEADLINE_SECONDS = 30.0
CONSUMER_SHARE = 0.75
DARK_LEVEL = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What a loader gave."""

    samples: int
    seconds: float
    """From the start of its processes to the last row."""
    cpu_seconds: float
    """Of the decoding processes and of this one."""
    wait_share: float
    """Share of the consumer's time, from the first step on, that it waited for rows."""
    bad: tuple[str, ...]


def hang_on_dark(frames_FHWC: np.ndarray, **limits: Any) -> np.ndarray:
    """DiffFP, but it hangs on the one dark video."""
    if frames_FHWC.mean() < 2 * DARK_LEVEL:
        time.sleep(3600)
    return keep_mask(frames_FHWC, **limits)


def make_dataset(folder: Path, copies: int) -> StagePlan:
    """Build a dataset of `copies` samples of each real file and one dark video, and plan one epoch of it."""
    files = {"dark.mp4": video_bytes(grey_frames([DARK_LEVEL] * 4), fps=2)}
    lines = [{"id": "dark", "video": ["dark.mp4"], "conversations": conversation("<video> What?", "Nothing.")}]
    for path in sorted([*(MEDIA / "images").iterdir(), *(MEDIA / "videos").iterdir()]):
        files[path.name] = path.read_bytes()
        kind = path.parent.name.removesuffix("s")
        for copy in range(copies):
            turns = conversation(f"<{kind}> What is it, number {copy}?", "Something.")
            lines.append({"id": f"{copy}-{path.name}", kind: [path.name], "conversations": turns})
    write_data_folder(folder / "data", train=lines, files=files)
    tokenizer = tokenizer_in(folder)
    build_dataset(folder / "data", folder / "set", config=CONFIG, tokenizer=tokenizer, prune=keep_mask, workers=2)
    (folder / "plan").mkdir()
    limits = {"max_length_tokens": CONFIG.max_length_tokens, "max_row_visual_tokens": CONFIG.max_row_visual_tokens}
    clips = sum("video" in line for line in lines)
    mixture = {"scene_image": float(len(lines) - clips), "general_video": float(clips)}  # every sample once
    request = make_request(mixture=mixture, seed=0, steps=None, epochs=1.0, packs_per_step=1, **limits)
    plan_stage([folder / "set"], folder / "plan", request)
    return StagePlan(folder / "plan")


def spans_of(plan: StagePlan) -> list[ShardSpan]:
    """Every sample in the order of the plan."""
    return [sample.span for step in range(plan.steps) for pack in plan.packs(step) for sample in pack.samples]


def decode_bare(folder: Path, spans: list[ShardSpan], taken: Any) -> None:
    """A process of the bare loop."""
    tokenizer = ChatTokenizer.from_folder(folder / "tokenizer")
    while True:
        with taken.get_lock():
            number, taken.value = taken.value, taken.value + 1
        if number >= len(spans):
            return
        record, media = read_sample(folder / "set", spans[number], where=f"{number}", split="train")
        prepare_sample(record, media, tokenizer, SETTINGS, keep_mask)


def run_bare(folder: Path, plan: StagePlan, processes: int) -> tuple[float, float]:
    """Seconds and processor seconds of the bare loop."""
    context, spans, cpu, started = (
        multiprocessing.get_context("spawn"),
        spans_of(plan),
        _cpu_seconds(),
        time.monotonic(),
    )
    taken = context.Value("q", 0)
    children = [context.Process(target=decode_bare, args=(folder, spans, taken)) for _ in range(processes)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    return time.monotonic() - started, _cpu_seconds() - cpu


def run_loader(
    folder: Path,
    plan: StagePlan,
    uri: str,
    processes: int,
    *,
    prune: Callable[..., np.ndarray] = keep_mask,
    seconds_a_sample: float = 0.0,
    deadline_seconds: float = 600.0,
) -> Taken:
    """Take all rows, with a pause after each step for a consumer that needs some time for each sample."""
    setup = DecoderSetup(
        uris=(uri,),
        settings=SETTINGS,
        tokenizer=ChatTokenizer.from_folder(folder / "tokenizer"),
        prune=prune,
        read_ahead_samples=4,
        cache_bytes=0,
    )
    ledger = Ledger(fraction=1.0, usable_samples=plan.facts.usable_samples)
    options: dict[str, Any] = {"processes": processes, "timeout_seconds": deadline_seconds, "rank": 0, "world_size": 1}
    cpu, started = _cpu_seconds(), time.monotonic()
    samples, waits, begun = 0, 0.0, 0.0
    with StageLoader(plan, setup, ledger, **options) as loader:
        steps = iter(loader)
        for number in range(plan.steps):
            asked = time.monotonic()
            step = next(steps)
            begun, waits = (begun, waits + time.monotonic() - asked) if number else (time.monotonic(), 0.0)
            count = sum(len(row.sample_ids) for row in step.rows)
            samples += count
            time.sleep(seconds_a_sample * count)
        ended = time.monotonic()
    return Taken(
        samples=samples,
        seconds=ended - started,
        cpu_seconds=_cpu_seconds() - cpu,
        wait_share=waits / (ended - begun),
        bad=tuple(bad.sample_id for bad in ledger.bad_samples),
    )


def _cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Measure all, and write the result."""
    plan, processes = make_dataset(folder, options.copies), options.processes
    weed, alive = join_server(folder / "weed")
    account = ACCOUNTS["admin"]
    os.environ |= {"AWS_ENDPOINT_URL": weed.endpoint, "AWS_ACCESS_KEY_ID": account.key}
    os.environ |= {"AWS_SECRET_ACCESS_KEY": account.secret, "AWS_REGION": "us-east-1"}
    disk, s3 = (folder / "set").as_uri(), f"s3://{BUCKET}/set"
    store = open_store(s3)
    for path in (folder / "set").iterdir():
        store.put_file(path, path.name)

    ratios: dict[str, list[float]] = {"disk": [], "s3": []}
    cpu_ratios: dict[str, list[float]] = {"disk": [], "s3": []}
    bare_rates, count = [], len(spans_of(plan))
    for _ in range(options.rounds):
        for name, uri in (("disk", disk), ("s3", s3)):
            seconds, cpu = run_bare(folder, plan, processes)
            got = run_loader(folder, plan, uri, processes)
            assert got.samples == count
            ratios[name].append(seconds / got.seconds)
            cpu_ratios[name].append(cpu / got.cpu_seconds)
            bare_rates.append(count / seconds)
            print(
                f"{name}: {seconds:.1f} s, {cpu:.1f} CPU s; {got.seconds:.1f} s, {got.cpu_seconds:.1f} CPU s",
                flush=True,
            )
    whole = run_loader(folder, plan, disk, processes)
    hung = run_loader(folder, plan, disk, processes, prune=hang_on_dark, deadline_seconds=DEADLINE_SECONDS)
    assert len(hung.bad) == 1, "the dark video is drawn, and nothing else is lost"
    pause = whole.seconds / count / CONSUMER_SHARE
    slow = run_loader(folder, plan, disk, processes, seconds_a_sample=pause)
    os.close(alive)

    def of(values: list[float]) -> str:
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    write_result(
        "loader",
        title="The loader",
        question=f"How fast are rows prepared by {processes} decoding processes, against as many processes that decode "
        "the same samples and drop them? How long does a slower consumer wait? What does a decoder that hangs cost?",
        command=f"python -m benchmarks.loader --copies {options.copies} --rounds {options.rounds} "
        f"--processes {processes}",
        columns=["what", "value", "wanted"],
        rows=[
            ["bare loop, samples a second", of(bare_rates), ""],
            ["rows from disk, of the bare loop's speed", of(ratios["disk"]), "0.95"],
            ["the same by processor time", of(cpu_ratios["disk"]), ""],
            ["rows from SeaweedFS on loopback, of the bare loop's speed", of(ratios["s3"]), "0.9"],
            ["the same by processor time, without the server's", of(cpu_ratios["s3"]), ""],
            [
                f"time that a consumer waits which takes {CONSUMER_SHARE} of what is decoded",
                f"{100 * slow.wait_share:.1f} %",
                "2 %",
            ],
            ["samples that are lost to a decoder that hangs", len(hung.bad), "1"],
            [
                f"seconds that it costs, with loader.sample_timeout_seconds={DEADLINE_SECONDS:g}",
                f"{hung.seconds - whole.seconds:.1f}",
                f"{DEADLINE_SECONDS:g}",
            ],
        ],
        notes=[
            f"{count} samples of 13 real images and videos (up to 145 s), as recipe vl3_2b prepares them, in "
            f"{plan.steps} steps of a row. Ratios are medians (with least and most) of {options.rounds} rounds: a loop "
            "and a loader run one after the other, and the start of the processes is part of the time.",
            f"Left out of the run with a decoder that hangs: {', '.join(hung.bad)}.",
            *options.note,
        ],
        libraries=["av", "numpy"],
    )


def main() -> int:
    """Measure, and write benchmarks/results/loader.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--note", action="append", default=[], help="said below the result, such as the machine's load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options)
    return 0


if __name__ == "__main__":
    from benchmarks import loader  # what is sent to other processes must be of the module, not of __main__

    raise SystemExit(loader.main())
