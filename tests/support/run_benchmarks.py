"""Runs fixtures of benchmarks through lmms-eval's tasks in its own environment: `run_benchmarks.py FOLDER NAME...`.

It prints one JSON line a benchmark; tests/unit/evaluation/harness reads them. Its own process, because lmms-eval reads
HF_HOME when it is imported, and may stand in another environment than the tests.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path


def judged(messages: list) -> tuple[str, int]:
    """A judge that goes by words: what a model with the same instructions would say of the fixtures."""
    text = messages[-1]["content"]
    if "Predicted Answer:" in text:
        said, right = (re.search(rf"{name}: (.*)", text)[1] for name in ("Predicted Answer", "Correct Answer"))
        return str({"pred": "yes" if said == right else "no", "score": 5 if said == right else 0}), 10
    if "Video Description:" in text:
        said = text.rpartition("Video Description:")[2].partition("\n")[0]
        return f"Reasoning: it says so\nAnswer: {'A. cat' if 'cat' in said else 'None of the choices are correct'}", 10
    if "Extracted answer:" in text:
        return "none", 10
    return ("0" if "Model Prediction" in text and 'Return only "1" or "0"' in text else "Incorrect"), 10


def main() -> None:
    """Build, copy, run and print."""
    folder, *names = sys.argv[1:]
    base = Path(folder)
    # By its place beside this file: lmms-eval's environment has a package `tests` of somebody else's.
    from benchmarks import build
    from vl3.evaluation.catalogue.copies import make_copy, show_media
    from vl3.evaluation.items import items_path, read_items
    from vl3.evaluation.judge_gateway import JudgeGateway
    from vl3.evaluation.local_judge import LocalJudge

    home = base / "hf"
    os.environ.update(HF_HOME=str(home), HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    os.environ["LMMS_EVAL_DATASETS_CACHE"] = str(home / "datasets-cache")
    together: list[int] = []

    class Counted(LocalJudge):
        def ask_all(self, questions):
            together.append(len(questions))
            return super().ask_all(questions)

    client = None
    if os.environ.get("FIXTURE_JUDGE"):
        client = Counted(base, base / "judge.sqlite", answering=judged)
    with JudgeGateway(client) as gateway:
        os.environ.update(gateway.environment)
        from vl3.evaluation.catalogue.copies import read_copy
        from vl3.evaluation.harness.answers import TaskAnswer
        from vl3.evaluation.harness.asking import ask_tasks, open_tasks
        from vl3.evaluation.harness.scores import RunLimits, score_benchmark
        from vl3.evaluation.units import OwnClaims

        for name in names:
            entry, expected = build(name, base / "root" / name)
            make_copy(entry, base / "root" / name, base / "copies" / name)
            show_media(home, entry, base / "copies" / name)

            def answering(asks: Iterator, answers=expected.answers) -> Iterator:
                for ask in asks:
                    if isinstance(ask, TaskAnswer):
                        yield ask
                        continue
                    task, _, number = ask.name.rpartition("-")
                    yield TaskAnswer(name=ask.name, text=answers[task][int(number)], tokens=1)

            gateway.expect(entry.judge_reply)
            together.clear()
            try:
                copy = base / "copies" / name
                tasks = open_tasks([entry], {name: copy}, base / "out" / "datasets")
                kept = {}
                keep = lambda _, item, kept=kept: kept.update({item.item_id: item})  # noqa: E731
                ask_tasks("fixture", tasks, answering, keep, known={}, claims=OwnClaims())
                score = score_benchmark(
                    read_copy(copy, entry),
                    tasks,
                    kept,
                    model="fixture",
                    out=base / "out",
                    limits=RunLimits(max_failed_share=float(os.environ.get("FIXTURE_MAX_FAILED", "0"))),
                    gateway=gateway,
                )
            except Exception as error:  # noqa: BLE001 (each fixture tells how it went)
                print("RESULT " + json.dumps({"name": name, "error": f"{type(error).__name__}: {error}"}), flush=True)
                continue
            items = [asdict(item) for item in read_items(items_path(base / "out", "fixture", name))]
            submission = json.loads((base / "out" / score.submission).read_text()) if score.submission else None
            found = {
                "name": name,
                "score": asdict(score),
                "items": items,
                "submission": submission,
                "together": [*together],
            }
            print("RESULT " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
