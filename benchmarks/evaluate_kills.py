"""An evaluation killed at random points and resumed gives the result of one that nobody killed.

`python -m benchmarks.evaluate_kills [--kills 10] [--write]`. Each time, one of its processes is killed (SIGKILL) at a
random moment after the first answer, and it is started again; the result files are compared at the end.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import write_result
from tests.support.cluster.corpus import make_corpus
from tests.support.evaluations import IDENTITY, evaluation_job, local_launch, make_checkpoint, publish_inputs
from vl3.data.build.of_run import build_for_run
from vl3.errors import ClusterError
from vl3.evaluation.asking import Questions
from vl3.evaluation.candidates import EvaluatedModel
from vl3.evaluation.items import items_path, read_items
from vl3.evaluation.journal import read_answers
from vl3.evaluation.runner import write_evaluation
from vl3.launch.local import launch_local
from vl3.recipes.tiny import tiny
from vl3.store.bases import base_folder


class Killer:
    """Kills a process of the evaluation once, some answers after the first one that it hears of."""

    def __init__(self, chance: random.Random) -> None:
        """Choose how many answers may still come."""
        self._chance = chance
        self._left = chance.uniform(0.0, 1.0)
        self._at: float | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Kill at the chosen moment."""
        if event["type"] != "progress" or event["done"] >= event["total"]:
            return
        if self._at is None:
            self._at = time.monotonic() + self._left * 2.0
        if time.monotonic() < self._at:
            return
        found = psutil.Process().children(recursive=True)
        ranks = [one for one in found if "vl3.evaluation.worker" in one.cmdline() and "RANK" in one.environ()]
        if ranks:
            os.kill(self._chance.choice(ranks).pid, signal.SIGKILL)


def main(arguments: argparse.Namespace) -> None:
    """Run it with kills and without."""
    chance, recipe = random.Random(arguments.seed), tiny()
    evaluation = replace(recipe.evaluation, samples_per_task=arguments.samples, batch_size=4)
    config = replace(recipe, evaluation=evaluation)
    with tempfile.TemporaryDirectory(prefix="vl3-benchmark-") as name:
        folder = Path(name)
        heldout = str(arguments.samples)
        corpus = make_corpus(folder / "corpus", "--seed", "5", "--heldout", heldout, "--scale", "0.02")
        dataset, language = folder / "dataset", base_folder(config.model.language_base)
        build_for_run(corpus.as_uri(), dataset, config, tokenizer_folder=language, identity="benchmark")
        checkpoint = make_checkpoint(folder / "checkpoint", config)
        inputs = publish_inputs(folder.as_uri(), config, dataset, checkpoint, folder / "made")
        models = [EvaluatedModel(name="before", folder=None), EvaluatedModel(name="video", folder=checkpoint)]
        questions = Questions.of_dataset(dataset, config)
        rows, results = [], {}
        for which, kills in (("never killed", 0), ("killed", arguments.kills)):
            job = evaluation_job((folder / which.replace(" ", "-")).as_uri(), config, inputs)
            began, done = time.monotonic(), 0
            attempts = 0
            while True:
                attempts += 1
                try:
                    tell = Killer(chance) if done < kills else lambda _: None
                    launch_local(local_launch(job, folder), tell)
                    break
                except ClusterError:
                    done += 1
            if done < kills:
                raise SystemExit(f"it ended after {done} of {kills} kills: give it more with --samples")
            out = folder / f"result-{which.replace(' ', '-')}"
            write_evaluation(models, read_answers(job.work_uri, IDENTITY), questions, config, out_folder=out)
            results[which] = out
            rows.append([which, done, attempts, 2 * len(questions.rows), f"{time.monotonic() - began:.1f}"])
            print(rows[-1])
        compare(*results.values())
    print("the result files are equal but for times")
    if arguments.write:
        write_result(
            "evaluate_kills",
            title="An evaluation that is killed and resumed",
            question="Killed at 10 random points and resumed, it gives the same result file.",
            command="python -m benchmarks.evaluate_kills --write",
            columns=("run", "kills", "attempts", "answers", "seconds"),
            rows=rows,
            notes=("evaluation.json is equal byte for byte, the records of all answers but for their times.",),
            libraries=("torch",),
        )


def compare(one: Path, other: Path) -> None:
    """End with an error if the results differ."""
    if (one / "evaluation.json").read_bytes() != (other / "evaluation.json").read_bytes():
        raise SystemExit("evaluation.json differs")
    for model in ("before", "video"):
        first, second = (read_items(items_path(folder, model, "heldout")) for folder in (one, other))
        if [replace(item, seconds=0.0) for item in first] != [replace(item, seconds=0.0) for item in second]:
            raise SystemExit(f"the records of {model} differ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--samples", type=int, default=250, help="held-out samples of each category")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/evaluate_kills.json")
    main(parser.parse_args())
