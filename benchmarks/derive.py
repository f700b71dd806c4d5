"""Derived data: lines a second and memory of cleaning, of making samples, and of drawing pages.

`python -m benchmarks.derive [--lines 100000 1000000]`; needs 1 GB on the disk and fonts of the system for pages.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.record import write_result

PICTURES, PAGES = 20_000, 100
WORDS = [
    "the",
    "a",
    "red",
    "blue",
    "small",
    "large",
    "dog",
    "car",
    "tree",
    "house",
    "stands",
    "runs",
    "near",
    "behind",
    "under",
    "with",
    "two",
    "three",
    "people",
    "and",
    "of",
]


def main() -> int:
    """Measure, and write benchmarks/results/derive.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--child", nargs=3, metavar=("WHAT", "FILE", "OUT"))
    options = parser.parse_args()
    if options.child:
        return _child(options.child[0], Path(options.child[1]), Path(options.child[2]))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for lines in options.lines:
            source = _write(folder / "in.jsonl", _instructions(lines))
            rows.append(_row("clean", lines, "lines", source, folder / f"clean-{lines}.jsonl"))
        for what in ("ocr-captions", "ocr-tasks"):
            source = _write(folder / "facts.jsonl", _pictures(PICTURES))
            rows.append(_row(what, PICTURES, "lines", source, folder / f"{what}.jsonl"))
        corpus = folder / "corpus.txt"
        corpus.write_text("\n".join(_sentence(Random(number), 60) for number in range(5000)))
        rows.append(_row("pages", PAGES, "pages", corpus, folder / "pages"))
    write_result(
        "derive",
        title="Derived data",
        question="How fast are instruction sets cleaned, samples made and pages drawn, and in how much memory?",
        command=f"python -m benchmarks.derive --lines {' '.join(map(str, options.lines))}",
        columns=["what", "of", "CPU s", "a second of CPU", "peak memory, MB", "samples"],
        rows=rows,
        notes=[
            "One process. Memory is that of the whole process, of which about 40 MB are Python and its libraries; for "
            "pages that of the process that lays out, which does not draw.",
            "Cleaning reads the lines twice. Of the synthetic ones (350 bytes, one to three turns with a picture) 5 % "
            "repeat one before, 2 % contradict one, and 1 % each are refusals, broken or in another script.",
            "A picture has 12 texts. A page has 640 to 1000 by 800 to 1280 pixels; its time is that of both processes.",
        ],
        libraries=["numpy", "pillow"],
    )
    return 0


def _row(what: str, count: int, unit: str, source: Path, out: Path) -> list[Any]:
    command = [sys.executable, "-m", "benchmarks.derive", "--child", what, str(source), str(out)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    seconds = found["seconds"]
    rate = round(count / seconds, 1 if count < 1000 * seconds else None)
    return [what, f"{count:,} {unit}", round(seconds, 1), f"{rate:,}", round(found["peak_mb"]), f"{found['samples']:,}"]


def _child(what: str, source: Path, out: Path) -> int:
    from vl3.data.derive.cleaning import clean
    from vl3.data.derive.makers import PLAIN_MAKERS, OcrTasks
    from vl3.data.derive.pages.make import make_pages
    from vl3.data.derive.runner import make_samples

    started = time.process_time()
    if what == "clean":
        card = clean([source], out)
    elif what == "pages":
        card = make_pages([source], out, pages=PAGES, seed=0)
    else:
        card = make_samples(what, OcrTasks(seed=0) if what == "ocr-tasks" else PLAIN_MAKERS[what], [source], out)
    drawing = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() - started + drawing.ru_utime + drawing.ru_stime
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "samples": card.samples}))
    return 0


def _write(path: Path, lines: Iterator[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return path


def _instructions(count: int) -> Iterator[dict[str, Any]]:
    random = Random(0)
    former: dict[str, Any] = {}
    for number in range(count):
        kind = random.random()
        if kind < 0.05 and former:
            yield former
            continue
        if kind < 0.07 and former:
            first, answer = former["conversations"][:2]
            other = {"Yes": "No", "No": "Yes"}[answer["value"]]
            yield {**former, "conversations": [first, {**answer, "value": other}]}
            continue
        texts = ["<image>\nIs it " + _sentence(random, 4) + "?", random.choice(("Yes", "No"))]
        for _ in range(random.randrange(3)):
            texts += [f"What is {_sentence(random, 3)}?", _sentence(random, 20)]
        if kind < 0.08:
            texts[-1] = "I'm sorry, but as an AI language model I cannot see the picture."
        elif kind < 0.09:
            texts[-1] = f"```\n{texts[-1]}"
        elif kind < 0.1:
            texts[-1] = "\u042d\u0442\u043e \u043a\u043e\u0442. " * 20
        turns = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]
        line = {"image": f"images/{number // 3:09d}.jpg", "source": "synthetic", "conversations": turns}
        if texts[1] in ("Yes", "No"):
            former = line
        yield line


def _pictures(count: int) -> Iterator[dict[str, Any]]:
    random = Random(0)
    for number in range(count):
        texts = [
            {
                "text": _sentence(random, 2),
                "box": [x := random.randrange(900), y := random.randrange(700), x + 90, y + 20],
            }
            for _ in range(12)
        ]
        yield {"image": f"{number}.jpg", "width": 1000, "height": 800, "caption": _sentence(random, 9), "texts": texts}


def _sentence(random: Random, words: int) -> str:
    return " ".join(random.choice(WORDS) for _ in range(words))


if __name__ == "__main__":
    sys.exit(main())
