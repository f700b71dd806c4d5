"""Damaged shards and plans through the loader of a training process.

Each of 600 samples has a change that follows from a seed, once with the digest of the damaged bytes in the plan (as if
somebody had made them), once with another digest; and each file of a plan is changed 300 times. Asked of each: no
decoding process is lost, none hangs or exceeds its memory, and nothing whose digest is wrong passes as good.
"""

import argparse
import logging
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.mutated_media import CONFIG, tokenizer_in
from benchmarks.record import write_result
from tests.support.mutations import make_intact, mutated
from tests.support.plans import make_request
from tests.support.samples import conversation, write_data_folder
from tests.support.shard_mutations import SignedPlan, samples_of, with_wrong_digests, write_mutated
from vl3.data.build.dataset import build_dataset
from vl3.data.loader.decoder import DecoderSetup
from vl3.data.loader.ledger import BadSample, Ledger
from vl3.data.loader.stage_loader import StageLoader
from vl3.data.plan.planner import plan_stage
from vl3.data.plan.stage_plan import Pack, StagePlan
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.prepare import PrepareSettings
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import ConfigError, DataError

DEADLINE_SECONDS = 60.0
PLAN_FILES = ("plan.json", "samples.npy", "packs.npy", "drawn.npy")


def make_plan(folder: Path) -> StagePlan:
    """A dataset of pictures and videos of each container and codec, and its plan."""
    files = make_intact(folder / "intact", seconds=1)
    lines = []
    for name in files:
        kind = "image" if name.startswith("picture") else "video"
        lines.append({"id": name, kind: [name], "conversations": conversation(f"<{kind}> What?", "A pattern.")})
    write_data_folder(folder / "data", train=lines, files=files)
    tokenizer = tokenizer_in(folder)
    build_dataset(folder / "data", folder / "set", config=CONFIG, tokenizer=tokenizer, prune=keep_mask, workers=2)
    (folder / "plan").mkdir()
    limits = {"max_length_tokens": CONFIG.max_length_tokens, "max_row_visual_tokens": CONFIG.max_row_visual_tokens}
    mixture = {"scene_image": 1.0, "general_video": 1.0}
    plan_stage([folder / "set"], folder / "plan", make_request(mixture=mixture, steps=20, packs_per_step=1, **limits))
    return StagePlan(folder / "plan")


def load(folder: Path, uri: str, plan: SignedPlan) -> list[BadSample]:
    """Take every row; returns the samples that were left out."""
    setup = DecoderSetup(
        uris=(uri,),
        settings=PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=True, data=CONFIG),
        tokenizer=ChatTokenizer.from_folder(folder / "tokenizer"),
        prune=keep_mask,
        read_ahead_samples=4,
        cache_bytes=0,
    )
    ledger = Ledger(fraction=1.0, usable_samples=plan.steps)
    options = {"processes": 2, "timeout_seconds": DEADLINE_SECONDS, "rank": 0, "world_size": 1}
    with StageLoader(plan, setup, ledger, **options) as loader:  # type: ignore[arg-type]
        rows = [row for step in loader for row in step.rows]
    assert len(rows) == plan.steps
    assert sum(not row.sample_ids for row in rows) == len(ledger.bad_samples)
    return ledger.bad_samples


def packs_of(folder: Path) -> list[list[Pack]]:
    """All rows of a plan."""
    with StagePlan(folder) as plan:
        return [plan.deal(step, 0, 1) for step in range(plan.steps)]


def damage_plan(folder: Path, name: str, count: int) -> tuple[int, int]:
    """Numbers of changes of a plan's file that were refused and that changed no row."""
    whole, packs, found = (folder / name).read_bytes(), packs_of(folder), Counter[str]()
    for seed in range(count):
        (folder / name).write_bytes(mutated(whole, whole[::-1], f"{name} {seed}"))
        try:
            found["the same" if packs_of(folder) == packs else "another"] += 1
        except (DataError, ConfigError):
            found["refused"] += 1
    (folder / name).write_bytes(whole)
    assert not found["another"]
    return found["refused"], found["the same"]


def measure(folder: Path, count: int) -> None:
    """Run all, and write the result."""
    lost: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lost.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("vl3.data.loader.pool").addHandler(handler)
    with make_plan(folder) as plan:
        signed = write_mutated(folder / "set", samples_of(plan), folder / "damaged", count)
    bad = load(folder, (folder / "damaged").as_uri(), signed)
    no_tar = sum("are no sample" in one.reason for one in bad)
    died = list(lost)
    wrong = load(folder, (folder / "damaged").as_uri(), with_wrong_digests(signed))
    plans = [(name, *damage_plan(folder / "plan", name, count // 2)) for name in PLAN_FILES]
    print(*died, sep="\n")
    write_result(
        "mutated_shards",
        title="Damaged shards and plans",
        question="Does any damaged sample or plan end a decoding process, hang it, or pass as good?",
        command=f"python -m benchmarks.mutated_shards --count {count}",
        columns=["what", "tried", "refused", "passed", "processes lost"],
        rows=[
            ["samples with another digest in the plan", count, len(wrong), count - len(wrong), len(lost) - len(died)],
            ["samples whose damaged bytes have their right digest", count, len(bad), count - len(bad), len(died)],
            *[[f"`{name}`, not fetched as an artifact", count // 2, refused, same, 0] for name, refused, same in plans],
        ],
        notes=[
            f"Of the samples with a right digest, {no_tar} were refused as no tar of a sample, the others when their "
            "media were decoded. Those that pass have a change in a name, a time, the padding, the text or the "
            "picture, which no reader can know to be wrong: a digest in a plan is of what was built.",
            "A changed plan that passes gives the same rows in every step: the change is in what no rank reads, or in "
            "words. A plan is an artifact: its files' digests are checked when it is fetched, before this.",
        ],
        libraries=["av", "pillow"],
    )


def main() -> int:
    """Measure, and write benchmarks/results/mutated_shards.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.count)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
