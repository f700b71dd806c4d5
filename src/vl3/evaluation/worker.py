"""One process of an evaluation: it asks every model its share of the samples.

Media are decoded once per portion; models with the same preparation share the prepared samples. Only one model is in
memory at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from vl3.config.run import EvaluationConfig
from vl3.data.build.shards import ShardReader
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.media import MediaContent
from vl3.data.sample.prepare import PreparedSample, decode_media, prepare_decoded
from vl3.data.sample.records import Record
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.evaluation.candidates import Assignment, Candidate, open_candidate
from vl3.evaluation.metrics import is_exact_match
from vl3.evaluation.result import Answer
from vl3.evaluation.tasks import RightMoment, is_right_moment, question_text, right_moment, spoken
from vl3.inference.generate import generate_answers
from vl3.inference.streaming import StreamResult, watch_streams
from vl3.models.model import VideoLlama3

PREPARED_BYTES = 1 << 30
"""Prepared pixels that a process keeps in memory; a larger share of samples is asked in several portions."""
SAMPLES_A_CALL = 256
"""Samples passed to generation at once: enough for full batches of similar length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedQuestion:
    """One sample, prepared for each kind of preparation."""

    row: int
    record: Record
    prepared: dict[str, PreparedSample]
    """Prepared sample by Candidate.preparation."""
    timestamps_F: np.ndarray
    right: RightMoment | None
    """The expected answer of a stream; None for other samples."""

    @property
    def size_bytes(self) -> int:
        """Size of the pixels in bytes."""
        return sum(sample.pixels_PC.nbytes for sample in self.prepared.values())


Report = Callable[[str, Sequence[tuple[int, Answer]]], None]
"""Takes a model's name and its answers by row."""
Tell = Callable[[Sequence[tuple[int, Answer]]], None]
"""Takes the answers of a model as each batch is answered."""


def answer_all(assignment: Assignment, report: Report) -> None:
    """Ask all models all questions of the assignment, reporting the answers as they come.

    Raises:
        DataError: a sample cannot be read or decoded.
        ConfigError: a checkpoint cannot be loaded.
    """
    candidates = [open_candidate(model, assignment.config) for model in assignment.models]
    questions = _questions(assignment, candidates)
    while portion := list(_portion(questions)):
        for candidate in candidates:
            _ask(candidate, portion, assignment.config.evaluation, report)


def _portion(questions: Iterator[PreparedQuestion]) -> Iterator[PreparedQuestion]:
    """The next questions that fit into memory together, at least one if there are any left."""
    size_bytes = 0
    for question in questions:
        yield question
        size_bytes += question.size_bytes
        if size_bytes >= PREPARED_BYTES:
            return


def _questions(assignment: Assignment, candidates: Sequence[Candidate]) -> Iterator[PreparedQuestion]:
    reader = ShardReader(assignment.dataset_folder)
    by_preparation = {candidate.preparation: candidate for candidate in candidates}
    tokenizers = {key: candidate.tokenizer() for key, candidate in by_preparation.items()}
    for row in assignment.rows:
        record, media = reader.read(row)
        yield _prepare(row, record, media, by_preparation, tokenizers)


def _prepare(
    row: int,
    record: Record,
    media: dict[str, MediaContent],
    by_preparation: dict[str, Candidate],
    tokenizers: dict[str, ChatTokenizer],
) -> PreparedQuestion:
    prepared: dict[str, PreparedSample] = {}
    ways = dict.fromkeys((one.settings.data, one.settings.picture) for one in by_preparation.values())
    for data, picture in ways:
        settings_of = {key: one.settings for key, one in by_preparation.items()}
        same = {key: one for key, one in settings_of.items() if (one.data, one.picture) == (data, picture)}
        decoded = decode_media(record, media, data, [settings.merges for settings in same.values()], picture=picture)
        for key, settings in same.items():
            prepared[key] = prepare_decoded(record, decoded, tokenizers[key], settings, keep_mask)
    timestamps_F = decoded.clip_times[0] if record.is_stream else np.zeros(0)
    right = right_moment(record, timestamps_F) if record.is_stream else None
    return PreparedQuestion(row=row, record=record, prepared=prepared, timestamps_F=timestamps_F, right=right)


def _ask(candidate: Candidate, questions: Sequence[PreparedQuestion], config: EvaluationConfig, report: Report) -> None:
    model, tokenizer, key = candidate.load(), candidate.tokenizer(), candidate.preparation
    streams = [question for question in questions if question.right is not None]
    others = [question for question in questions if question.right is None]
    tell = partial(report, candidate.name)
    for group in _groups(others):
        _answer(model, tokenizer, group, key, config, tell)
    for group in _groups(streams):
        _watch(model, tokenizer, group, key, config, tell)


def _groups(questions: Iterable[PreparedQuestion]) -> Iterator[list[PreparedQuestion]]:
    iterator = iter(questions)
    while group := list(islice(iterator, SAMPLES_A_CALL)):
        yield group


def _answer(
    model: VideoLlama3,
    tokenizer: ChatTokenizer,
    questions: list[PreparedQuestion],
    key: str,
    config: EvaluationConfig,
    tell: Tell,
) -> None:
    def take(batch: Sequence[int], texts: Sequence[str]) -> None:
        answers = []
        for question, text in zip((questions[index] for index in batch), texts, strict=True):
            right = question.record.answer
            answers.append((question.row, _entry(question.record, right, text, is_exact_match(text, right))))
        tell(answers)

    samples = [question.prepared[key] for question in questions]
    generate_answers(
        model,
        samples,
        tokenizer,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        on_batch=take,
    )


def _watch(
    model: VideoLlama3,
    tokenizer: ChatTokenizer,
    questions: list[PreparedQuestion],
    key: str,
    config: EvaluationConfig,
    tell: Tell,
) -> None:
    def take(batch: Sequence[int], results: Sequence[StreamResult]) -> None:
        tell([_watched(questions[index], result) for index, result in zip(batch, results, strict=True)])

    samples = [question.prepared[key] for question in questions]
    watch_streams(
        model,
        samples,
        tokenizer,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        on_batch=take,
    )


def _watched(question: PreparedQuestion, result: StreamResult) -> tuple[int, Answer]:
    record, right = question.record, question.right
    clock = (question.timestamps_F, record.start_seconds)
    wanted = spoken(right.frame_index, right.text, *clock)  # type: ignore[union-attr]
    said = spoken(result.frame_index, result.text, *clock)
    correct = is_right_moment(result.frame_index, result.text, right)  # type: ignore[arg-type]
    return question.row, _entry(record, wanted, said, correct)


def _entry(record: Record, answer: str, prediction: str, correct: bool) -> Answer:
    return Answer(
        sample_id=record.sample_id,
        category=record.category.value,
        prompt=question_text(record),
        answer=answer,
        prediction=prediction,
        correct=correct,
        chance=record.chance,
    )
