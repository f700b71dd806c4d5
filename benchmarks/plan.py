"""Plans of up to 20 million samples: planned how fast, opened how fast, how full and how even?

`python -m benchmarks.plan --folder /tmp/plans` (4 GB there; indexes that it has are used again).
"""

import argparse
import multiprocessing
import resource
import shutil
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.record import write_result
from benchmarks.synthetic_index import BUDGET_TOKENS, MIXTURES, write_synthetic
from vl3.config.mixture import Draw
from vl3.data.plan.demand import PlanRequest
from vl3.data.plan.facts import PlanFacts
from vl3.data.plan.planner import plan_stage
from vl3.data.plan.samples import SizeRule
from vl3.data.plan.stage_plan import StagePlan

COUNTS = (100_000, 1_000_000, 20_000_000)
ROWS_OF = 1_000_000
"""Samples of the plans whose rows are judged."""
PROCESSES = 8
STEPS = (10, 10_000, 100_000)
RANKS = 64
_SPAWN = multiprocessing.get_context("spawn")


def request(like: str, **changes: Any) -> PlanRequest:
    """One epoch with the large recipes' limits."""
    is_video = like == "stage 4"
    sizes = SizeRule(image_merge_size=2 if is_video else 1, difffp=is_video, prune_before_encoder=False)
    options = {
        "mixture": dict.fromkeys(MIXTURES[like], Draw(epochs=1.0)),
        "seed": 42,
        "steps": None,
        "epochs": 1.0,
        "packs_per_step": None,
        "samples_per_step": 128,
        "packs_divisible_by": 16,
        "max_length_tokens": 16384,
        "max_row_visual_tokens": BUDGET_TOKENS,
        "sizes": sizes,
    }
    return PlanRequest(**{**options, **changes})


def index_of(folder: Path, like: str, samples: int) -> Path:
    """A synthetic index, made once."""
    dataset = folder / f"{like.replace(' ', '-')}-{samples}"
    if not (dataset / "summary.json").exists():
        shutil.rmtree(dataset, ignore_errors=True)
        write_synthetic(dataset, like, samples)
    return dataset


def in_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a process of its own, whose peak of memory is the work's."""
    here, there = _SPAWN.Pipe()
    process = _SPAWN.Process(target=work, args=(there, *arguments))
    process.start()
    there.close()
    result = here.recv()
    process.join()
    return result


def make(pipe: Connection, dataset: Path, out: Path, asked: PlanRequest) -> None:
    """Plan; send the facts, the CPU seconds and the peak of memory in MB."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    before = time.process_time()
    facts = plan_stage([dataset], out, asked)
    seconds = time.process_time() - before
    pipe.send((facts, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000))


def read(pipe: Connection, folder: Path, rank: int) -> None:
    """Be a rank: open the plan, read some steps, read a thousand more; answer how long each took when asked."""
    pipe.send(None)
    pipe.recv()
    before = time.perf_counter()
    plan = StagePlan(folder)
    plan.deal(0, rank, PROCESSES)
    times: dict[str, float] = {"open": time.perf_counter() - before}
    for step in (step for step in STEPS if step < plan.steps):
        before = time.perf_counter()
        plan.deal(step, rank, PROCESSES)
        times[f"step {step}"] = time.perf_counter() - before
        before = time.perf_counter()
        plan.mixture_drawn(step)
        times[f"drawn {step}"] = time.perf_counter() - before
    pipe.send(times)
    pipe.recv()
    for step in range(max(0, plan.steps - 1000), plan.steps):
        plan.deal(step, rank, PROCESSES)
    pipe.send(None)
    pipe.recv()


def pss_mb(process: Any) -> float:
    """Memory of a process, with what it shares divided by those who share it."""
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1000


def open_together(folder: Path) -> dict[str, float]:
    """Times in seconds (the slowest process), and memory in MB of all processes before, after opening, at the end."""
    pipes, processes = [], []
    for rank in range(PROCESSES):
        here, there = _SPAWN.Pipe()
        process = _SPAWN.Process(target=read, args=(there, folder, rank))
        process.start()
        pipes.append(here)
        processes.append(process)

    def step(name: str) -> list[Any]:
        answers = [pipe.recv() for pipe in pipes]
        result[f"mb {name}"] = sum(map(pss_mb, processes))
        for pipe in pipes:
            pipe.send("go on")
        return answers

    result: dict[str, float] = {}
    step("before")
    times = step("opened")
    step("at the end")
    for process in processes:
        process.join()
    return result | {name: max(one[name] for one in times) for name in times[0]}


def growth(folder: Path) -> None:
    """Measure the plans of growing indexes."""
    rows = []
    for samples in COUNTS:
        dataset, out = index_of(folder, "stage 2", samples), folder / "plan"
        facts, seconds, peak_mb = in_process(make, dataset, out, request("stage 2"))
        found = open_together(out)
        rows.append(
            [
                f"{samples:,}",
                f"{facts.steps:,}",
                f"{sum(path.stat().st_size for path in out.iterdir()) / 1e6:,.0f}",
                f"{samples / seconds:,.0f}",
                f"{peak_mb:,.0f}",
                f"{1000 * found['open']:.0f}",
                f"{found['mb opened'] - found['mb before']:.0f} of {found['mb opened']:.0f}",
                f"{found['mb at the end'] - found['mb before']:.0f}",
                " / ".join(_ms(found, f"step {step}") for step in STEPS),
                " / ".join(_ms(found, f"drawn {step}") for step in STEPS),
            ]
        )
        shutil.rmtree(out)
    write_result(
        "plan_growth",
        title="Plans grow with the data, and opening one does not",
        question="Stage-2-like indexes of up to 20 million samples (the distributions are in "
        "benchmarks/synthetic_index.py). Targets: 200,000 samples/s on one core; opened under 2 s and 300 MB by all "
        f"processes of a node together (here {PROCESSES}); any step reached in under 1 s, whatever came before it; the "
        "samples drawn up to a step in constant time.",
        command="python -m benchmarks.plan --folder /tmp/plans",
        columns=[
            "samples",
            "steps",
            "plan, MB",
            "planned, samples per CPU second",
            "planner's peak, MB",
            f"opened by {PROCESSES}, ms",
            "memory of opening, MB of all",
            "and after 1,000 more steps, MB",
            f"step {' / '.join(f'{step:,}' for step in STEPS)}, ms",
            "drawn up to it, ms",
        ],
        rows=rows,
        notes=[
            "Planning includes reading the Parquet index and hashing it, and writing the plan. The planner is one "
            "process of the step plan_data, not a rank.",
            f"{PROCESSES} processes open the plan at the same time and read the packs of a rank; times are those of "
            "the slowest. Memory is proportional (PSS), over all of them: what opening added, and the whole, which is "
            "mostly Python and numpy.",
        ],
        libraries=("numpy", "pyarrow"),
    )


def _ms(found: dict[str, float], name: str) -> str:
    return f"{1000 * found[name]:.1f}" if name in found else "-"


def rows_of_steps(folder: Path) -> None:
    """Measure how full the rows are and how evenly ranks share them."""
    rows = []
    for like in MIXTURES:
        dataset, out = index_of(folder, like, ROWS_OF), folder / "plan"
        for changes in ({}, {"max_row_visual_tokens": 16384}, {"samples_per_step": None, "packs_per_step": 8 * RANKS}):
            facts, _, _ = in_process(make, dataset, out, request(like, **changes))
            rows.append(_row(like, facts))
        shutil.rmtree(out)
    write_result(
        "plan_rows",
        title="Rows are full, and ranks are even",
        question=f"One epoch of {ROWS_OF:,} samples, rows of 16,384 tokens, lengths like those of stages 2 and 4 (the "
        "distributions are in benchmarks/synthetic_index.py). Targets: the limit that binds is at least 98.5 % full; "
        f"the cost of {RANKS} ranks is within 3 % of their mean where a rank has at least 8 rows of a step.",
        command="python -m benchmarks.plan --folder /tmp/plans",
        columns=[
            "lengths",
            "vision tokens a row",
            "rows a step",
            "samples a step",
            "full: tokens",
            "full: vision tokens",
            "full: what binds",
            "ranks",
            "costliest rank over the mean",
            "worst step",
        ],
        rows=rows,
        notes=[
            "Cost is that of VideoLLaMA3-2B. The worst step has a row of a single page of 10,240 patches that all "
            "attend to each other: with equal numbers of rows, its rank cannot be relieved further.",
            "128 samples a step are asked for, in a multiple of 16 rows; in the last line of each, 512 rows.",
        ],
        libraries=("numpy", "pyarrow"),
    )


def _row(like: str, facts: PlanFacts) -> list[str]:
    most = facts.balance[-1]
    return [
        like,
        f"{facts.asked['max_row_visual_tokens']:,}",
        str(facts.packs_per_step),
        f"{facts.samples_per_step:.0f}",
        *(f"{100 * fill:.1f} %" for fill in (facts.fill.length, facts.fill.visual, facts.fill.binding)),
        str(most.ranks),
        f"{100 * most.mean:.1f} %",
        f"{100 * most.worst:.1f} %",
    ]


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="Folder for indexes and plans.")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    rows_of_steps(folder)
    growth(folder)


if __name__ == "__main__":
    main()
