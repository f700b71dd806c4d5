"""Held-out accuracy of several models over all categories, from the records of all answers."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from vl3.config.gates import HELDOUT
from vl3.config.run import RunConfig
from vl3.errors import ClusterError, ConfigError
from vl3.evaluation.asking import ProcessPlace, Questions, ask_models, check_failures
from vl3.evaluation.candidates import EvaluatedModel, open_candidate
from vl3.evaluation.document import EVALUATION_FILE, ITEMS_FILE
from vl3.evaluation.items import ItemRecord, items_path, write_items
from vl3.evaluation.journal import Answers
from vl3.evaluation.judges import AnswerJudge, EndpointJudge
from vl3.evaluation.judging.held_captions import score_captions
from vl3.evaluation.pictures import choose_examples, describe_examples
from vl3.evaluation.result import Answer, Evaluation, count_confusions, list_items, score_answers
from vl3.evaluation.tasks import without_tags
from vl3.system.files import atomic_write_text, storage_errors

HELDOUT_JUDGE_FILE = "heldout-judge.sqlite"
"""The questions to the judge of held-out descriptions, and its answers."""
HALF_RIGHT = 0.5
"""Score from which on an answer counts as right, where a rule gives parts (ANLS, overlaps); gates take the score."""
Progress = Callable[[int, int, str], None]
"""Takes the number of answers so far, the total, and a note on the current model."""


def evaluate_models(
    models: Sequence[EvaluatedModel],
    dataset_folder: Path,
    config: RunConfig,
    *,
    out_folder: Path,
    progress: Progress | None = None,
) -> Evaluation:
    """Ask every model the same held-out samples in this process, on a GPU if there is one, and count the right answers.

    Args:
        models: models with different names; the predictions to show are chosen by the last one's mistakes.
        dataset_folder: a built dataset.
        config: configuration of this run.
        out_folder: gets evaluation.json, the pictures that it names, items.json, and the records of all answers.
        progress: called as answers arrive.

    Raises:
        DataError: no sample is held out, or more cannot be read or decoded than the configuration allows.
        ConfigError: a checkpoint cannot be loaded or has no usable run.json.
        StorageError: the result cannot be written.
    """
    import torch

    check_model_names([model.name for model in models])
    tell, answers = progress or (lambda *_: None), Answers()
    questions = Questions.of_dataset(dataset_folder, config)
    total = len(questions.rows) * len(models)

    def keep(model: str, item: ItemRecord) -> None:
        answers.setdefault(model, {})[item.item_id] = item
        tell(sum(map(len, answers.values())), total, f"model {model}")

    tell(0, total, f"{len(models)} models, {len(questions.rows)} samples each")
    place = ProcessPlace(device="cuda" if torch.cuda.is_available() else "cpu")
    ask_models(models, questions, config, keep, place=place)
    return write_evaluation(models, answers, questions, config, out_folder=out_folder)


def write_evaluation(
    models: Sequence[EvaluatedModel],
    answers: Answers,
    questions: Questions,
    config: RunConfig,
    *,
    out_folder: Path,
) -> Evaluation:
    """Score all answers and write the result; equal answers give equal bytes but for the seconds of the records.

    Args:
        models: as for evaluate_models.
        answers: the records of all processes and attempts.
        questions: what was asked.
        config: configuration of this run.
        out_folder: as for evaluate_models.

    Raises:
        ClusterError: a question has no answer.
        DataError: more questions failed than the configuration allows.
        StorageError: the result cannot be written.
    """
    check_model_names([model.name for model in models])
    names, rows = [model.name for model in models], questions.rows
    for name in names:
        _check_complete(name, answers.get(name, {}), questions)
        failures = {key: item.why_no_score for key, item in answers[name].items() if item.answer is None}
        check_failures(name, failures, len(rows), config)
    with closing_judge(config, out_folder) as judge:
        answers = {name: score_captions(answers[name], judge) for name in names}
    by_row = {
        name: {row.row: _answer(item) for row in rows if (item := answers[name][row.sample_id]).score is not None}
        for name in names
    }
    # What one model was not asked is no ground to compare it with the others.
    common = {
        name: {row: answer for row, answer in given.items() if all(row in other for other in by_row.values())}
        for name, given in by_row.items()
    }
    settings = open_candidate(models[-1], config).settings
    evaluation = Evaluation(
        models=[
            score_answers(name, list(given.values()), failed=_failed_by_group(answers[name]))
            for name, given in by_row.items()
        ],
        predictions=describe_examples(
            choose_examples(common[names[-1]]), common, questions.reader, settings, out_folder
        ),
        confusions={name: count_confusions(list(given.values())) for name, given in by_row.items()},
    )
    items = list_items(common, {row.row: row.sha256 for row in rows})
    for file, content in ((EVALUATION_FILE, evaluation.to_dict()), (ITEMS_FILE, items)):
        atomic_write_text(out_folder / file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    for name in names:
        path = items_path(out_folder, name, HELDOUT)
        with storage_errors(path):
            write_items(path, (answers[name][row.sample_id] for row in rows))
    return evaluation


@contextmanager
def closing_judge(config: RunConfig, out_folder: Path) -> Iterator[AnswerJudge | None]:
    """The judge of descriptions, with its records in the evaluation's folder; None if there is none."""
    settings = config.evaluation.judge
    if settings is None:
        yield None
        return
    with closing(EndpointJudge(settings, out_folder / HELDOUT_JUDGE_FILE)) as judge:
        yield judge


def check_model_names(names: Sequence[str]) -> None:
    """Raise ConfigError unless there is a model and no two have the same name."""
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"the models to evaluate are named {list(names)}: give at least one, each with a different name."
        )


def _check_complete(model: str, answers: Mapping[str, ItemRecord], questions: Questions) -> None:
    missing = [row for row in questions.rows if row.sample_id not in answers]
    if missing:
        raise ClusterError(
            f"all processes of the evaluation ended well, but {len(missing)} of the {len(questions.rows)} questions to "
            f"model {model} have no answer; the first is {missing[0].where}. A score without them would be one of "
            "other questions. Start the run again: it asks what is missing."
        )


def _answer(item: ItemRecord) -> Answer:
    assert item.answer is not None
    return Answer(
        sample_id=item.item_id,
        category=item.group,
        prompt=without_tags(item.prompt),
        answer=item.reference,
        prediction=item.answer,
        correct=item.score is not None and item.score >= HALF_RIGHT,
        chance=item.chance,
    )


def _failed_by_group(answers: Mapping[str, ItemRecord]) -> dict[str, int]:
    """Questions of each category that could not be asked."""
    counts: dict[str, int] = {}
    for item in answers.values():
        if item.answer is None:
            counts[item.group] = counts.get(item.group, 0) + 1
    return counts
