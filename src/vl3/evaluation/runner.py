"""Held-out accuracy of several models over all categories, by greedy generation, in several processes."""

import json
from collections.abc import Callable
from pathlib import Path

from vl3.config.run import RunConfig
from vl3.data.build.index import DatasetIndex
from vl3.data.build.shards import ShardReader
from vl3.errors import ConfigError
from vl3.evaluation.candidates import Assignment, EvaluatedModel, open_candidate
from vl3.evaluation.document import EVALUATION_FILE, ITEMS_FILE
from vl3.evaluation.pictures import choose_examples, describe_examples
from vl3.evaluation.pool import run_assignments, serve
from vl3.evaluation.result import Answer, Evaluation, count_confusions, list_items, score_answers
from vl3.evaluation.tasks import choose_rows
from vl3.system.files import atomic_write_text

Progress = Callable[[int, int, str], None]
"""Takes the number of answers so far, the total, and a note on the current model."""


def evaluate_models(
    models: list[EvaluatedModel],
    dataset_folder: Path,
    config: RunConfig,
    *,
    out_folder: Path,
    progress: Progress | None = None,
) -> Evaluation:
    """Ask every model the same held-out samples of every category and count exact matches.

    Args:
        models: models with different names; the predictions to show are chosen by the last one's mistakes.
        dataset_folder: a built dataset.
        config: configuration of this run; `evaluation` has the number of samples and of processes.
        out_folder: gets evaluation.json, the pictures that it names, and items.json.
        progress: called as answers arrive.

    Raises:
        DataError: no sample is held out, or one cannot be read or decoded.
        ConfigError: a checkpoint cannot be loaded or has no usable run.json.
        ClusterError: a process of the evaluation died.
        StorageError: the result cannot be written.
    """
    _check_names(models)
    index = DatasetIndex.read(dataset_folder)
    rows_by_category = choose_rows(index, config.evaluation.samples_per_task, config.evaluation.categories)
    rows = [row for chosen in rows_by_category.values() for row in chosen]
    answers = _answers(models, dataset_folder, config, rows, progress or (lambda *_: None))
    examples = choose_examples(answers[models[-1].name])
    settings = open_candidate(models[-1], config).settings
    evaluation = Evaluation(
        models=[score_answers(name, list(by_row.values())) for name, by_row in answers.items()],
        predictions=describe_examples(examples, answers, ShardReader(dataset_folder), settings, out_folder),
        confusions={name: count_confusions(list(by_row.values())) for name, by_row in answers.items()},
    )
    digests = index.column("sha256").tolist()
    items = list_items(answers, {row: digests[row] for row in rows})
    for name, content in ((EVALUATION_FILE, evaluation.to_dict()), (ITEMS_FILE, items)):
        atomic_write_text(out_folder / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return evaluation


def _check_names(models: list[EvaluatedModel]) -> None:
    names = [model.name for model in models]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"the models to evaluate are named {names}: give at least one, each with a different name.")


def _answers(
    models: list[EvaluatedModel], dataset_folder: Path, config: RunConfig, rows: list[int], progress: Progress
) -> dict[str, dict[int, Answer]]:
    """Answers by model and row, both in the given order. Two processes get the rows 0 2 4 ... and 1 3 5 ... of them."""
    processes = min(config.evaluation.processes, len(rows))
    assignments = [
        Assignment(
            models=tuple(models), dataset_folder=dataset_folder, config=config, rows=tuple(rows[number::processes])
        )
        for number in range(processes)
    ]
    found: dict[str, dict[int, Answer]] = {model.name: {} for model in models}
    total = len(rows) * len(models)

    def collect(name: str, answers: list[tuple[int, Answer]]) -> None:
        found[name].update(answers)
        progress(sum(len(by_row) for by_row in found.values()), total, f"model {name}")

    progress(0, total, f"{len(models)} models, {len(rows)} samples each")
    run_assignments(assignments, collect, serve)
    return {name: {row: by_row[row] for row in rows} for name, by_row in found.items()}
