"""Chunks: the images of a part that travel together through the scorers, and what a scorer does with one.

A part's chunks follow from its listing alone, so that a batch holds the same images however often a run was killed:

    sizes 3 MB, 200 MB, 100 MB, 1 MB; 64 images or 256 MB a chunk     rows 0 to 2, row 3
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vl3.curation.places import Places
from vl3.curation.rounds import (
    FAILED,
    OPEN,
    READ_STEP,
    Operation,
    Round,
    Verdicts,
    inputs_of,
    judge,
    known_answers,
    retried_scorers,
)
from vl3.curation.scorer import ERROR_SUFFIX, Batch, Scorer
from vl3.curation.scores import ScorerKey, ScoreStore
from vl3.curation.source import InputPart, InputRow, content_digest, read_part
from vl3.curation.table import empty_like, stored_form
from vl3.errors import DataError

log = logging.getLogger(__name__)

CHUNK_BYTES = 256 << 20
"""Bytes of files after which a chunk ends."""
MAX_REASON_CHARACTERS = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSetup:
    """What every process of a round needs. It is sent to other processes, with small numbers and addresses only."""

    round: Round
    keys: dict[str, ScorerKey]
    inputs: dict[str, tuple[str, ...]]
    """By scorer, the columns that it needs."""
    places: Places
    scores: ScoreStore
    before: str
    """Key of the states at the end of the round before; empty for the first."""
    chunk_images: int
    max_image_bytes: int
    batch_images: dict[str, int]
    """By scorer, the images that its model is given together."""
    retried: tuple[str, ...] = ()
    """Scorers whose failures may pass, such as an endpoint's: they are asked once more in a new run."""


def make_setup(
    round_: Round,
    scorers: Mapping[str, Scorer],
    keys: Mapping[str, ScorerKey],
    places: Places,
    scores: ScoreStore,
    *,
    before: str,
    chunk_images: int,
    max_image_bytes: int,
    batch_images: Mapping[str, int],
) -> FlowSetup:
    """The setup of a round."""
    return FlowSetup(
        round=round_,
        keys={name: keys[name] for name in round_.scorers} | dict(keys),
        inputs={name: inputs_of(scorers[name]) for name in round_.scorers},
        places=places,
        scores=scores,
        before=before,
        chunk_images=chunk_images,
        max_image_bytes=max_image_bytes,
        batch_images=dict(batch_images),
        retried=retried_scorers(round_, scorers),
    )


def read_chunks(part: InputPart, setup: FlowSetup) -> Iterator[tuple[int, Batch]]:
    """The chunks of a part that lack a score, each with the number of its first row.

    The first time a part is read, its listing is written on the way; later only the files are read that a scorer needs.

    Raises:
        DataError: the part cannot be read at all.
        StorageError: the store fails.
    """
    listing = setup.places.listing(part.name)
    if listing is None:
        yield from _first_reading(part, setup)
        return
    is_open = _open_rows(part, setup, listing)
    wanted: dict[Any, int] = {listing["key"][place].as_py(): place for place in np.flatnonzero(is_open).tolist()}
    if not wanted:
        return
    sizes_bytes: list[Any] = listing["size_bytes"].to_pylist()
    starts = chunk_starts(sizes_bytes, setup.chunk_images)
    if any("bytes" in setup.inputs[name] for name in setup.round.scorers):
        rows: Iterator[InputRow] = read_part(part, frozenset(wanted), max_bytes=setup.max_image_bytes)
    else:
        rows = _rows_of(listing, list(wanted.values()))
    for start, group in _grouped(rows, wanted, starts):
        yield start, _batch_of(group)


def score_chunk(
    part: str,
    start: int,
    batch: Batch,
    operations: Sequence[Operation],
    scorers: Mapping[str, Scorer],
    setup: FlowSetup,
) -> Batch:
    """Score a chunk by some operations; returns it with their columns, without the images that were dropped or failed.

    Raises:
        DataError: a scorer returned something else than the columns that it promises.
        StorageError: a score cannot be stored.
    """
    for operation in operations:
        if not len(batch["sha256"]):
            return batch
        if operation.scorer:
            batch = batch | _answers(part, start, batch, operation.scorer, scorers[operation.scorer], setup)
        verdicts = Verdicts.all_kept(len(batch["sha256"]))
        key = _judged_key(operation, setup)
        columns = (key.error,) if operation.filter is None else (operation.filter.column,)
        found = {column: _column(part, batch, column, setup) for column in columns}
        everyone = np.ones(len(batch["sha256"]), dtype=bool)
        judge([operation], setup.keys, {key.name: found}, {key.name: everyone}, verdicts)
        batch = {column: values[verdicts.is_kept] for column, values in batch.items()}
    return batch


def finish_part(part: InputPart, setup: FlowSetup) -> None:
    """Write what became of each image of a part by the end of a round.

    Raises:
        DataError: images have no score, because their files changed.
        StorageError: the store fails.
    """
    if setup.places.has_state(setup.round.key, part.name):
        return
    setup.scores.forget()
    for name in setup.round.scorers:
        setup.scores.finish(setup.keys[name], part.name)
    listing = setup.places.require_listing(part.name)
    verdicts = _judged(part, setup, listing, retry=False)
    if (missing := int((verdicts.status == OPEN).sum())) > 0:
        raise DataError(
            f"{part.name}: {missing} images have no score of {', '.join(setup.round.scorers)}: their files are gone or "
            "other ones since the part was listed. Restore them, or start a new run on the changed data."
        )
    setup.places.write_state(setup.round.key, part.name, verdicts)


def chunk_starts(sizes_bytes: Sequence[int], chunk_images: int) -> np.ndarray:
    """For each row of a part the number of its chunk's first row; a row without a file counts no bytes."""
    starts = np.zeros(len(sizes_bytes), dtype=np.int64)
    start = count = total = 0
    for row, size in enumerate(sizes_bytes):
        if count == chunk_images or (count and total + (size or 0) > CHUNK_BYTES):
            start, count, total = row, 0, 0
        starts[row], count, total = start, count + 1, total + (size or 0)
    return starts


def _first_reading(part: InputPart, setup: FlowSetup) -> Iterator[tuple[int, Batch]]:
    """Every image of a part, chunk by chunk; its listing is written at the end."""
    columns: dict[str, list[Any]] = {name: [] for name in ("key", "where", "sha256", "text", "size_bytes", "problem")}
    group: list[tuple[int, InputRow, str]] = []
    start = total = 0
    for number, row in enumerate(read_part(part, max_bytes=setup.max_image_bytes)):
        size = len(row.data or b"")
        if number - start == setup.chunk_images or (number > start and total + size > CHUNK_BYTES):
            if group:
                yield start, _batch_of(group)
            group, start, total = [], number, 0
        total += size
        sha256 = content_digest(row.data) if row.data is not None else None
        problem = (row.problem or "it has no file")[:MAX_REASON_CHARACTERS] if sha256 is None else None
        for name, value in zip(columns, (row.key, row.where, sha256, row.text, size, problem), strict=True):
            columns[name].append(value)
        if sha256 is not None:
            group.append((number, row, sha256))
    if group:
        yield start, _batch_of(group)
    kinds = {"size_bytes": pa.int64()}
    setup.places.write_listing(
        part.name, pa.table({name: pa.array(column, kinds.get(name, pa.string())) for name, column in columns.items()})
    )


def _batch_of(group: list[tuple[int, InputRow, str]]) -> Batch:
    files, texts = np.empty(len(group), dtype=object), np.empty(len(group), dtype=object)
    digests = np.empty(len(group), dtype=object)
    files[:] = [row.data for _, row, _ in group]
    texts[:] = [row.text for _, row, _ in group]
    digests[:] = [sha256 for _, _, sha256 in group]
    return {"sha256": digests, "bytes": files, "text": texts}


def _grouped(
    rows: Iterator[InputRow], places: Mapping[str, int], starts: np.ndarray
) -> Iterator[tuple[int, list[tuple[int, InputRow, str]]]]:
    """Rows by chunk."""
    group: list[tuple[int, InputRow, str]] = []
    current = -1
    for row in rows:
        place = places[row.key]
        if starts[place] != current and group:
            yield current, group
            group = []
        current = int(starts[place])
        if row.data is not None:
            group.append((place, row, content_digest(row.data)))
        elif not row.problem:  # no scorer of the round needs the file
            group.append((place, row, row.where))
    if group:
        yield current, group


def _rows_of(listing: pa.Table, places: list[int]) -> Iterator[InputRow]:
    """Rows without files; the digest stands in `where`."""
    columns: dict[str, list[Any]] = {name: listing[name].to_pylist() for name in ("key", "sha256", "text")}
    for place in places:
        yield InputRow(
            key=columns["key"][place], where=columns["sha256"][place], text=columns["text"][place], data=None
        )


def _open_rows(part: InputPart, setup: FlowSetup, listing: pa.Table) -> np.ndarray:
    return _judged(part, setup, listing, retry=True).status == OPEN


def _judged(part: InputPart, setup: FlowSetup, listing: pa.Table, *, retry: bool) -> Verdicts:
    verdicts = _verdicts_before(part, setup, listing)
    sha256s = listing["sha256"].to_pylist()
    used = [key for key in setup.keys.values() if key.name in setup.round.scorers or _is_judged(key, setup.round)]
    found = {key.name: setup.scores.of_part(key, part.name) for key in used}
    scores, known = known_answers(used, found, sha256s)
    if retry:
        for name in setup.retried:
            known[name] &= _has_no_error(scores[name][setup.keys[name].error])
    judge(setup.round.operations, setup.keys, scores, known, verdicts)
    return verdicts


def _judged_key(operation: Operation, setup: FlowSetup) -> ScorerKey:
    """The scorer whose column an operation makes or judges."""
    if operation.filter is None:
        return setup.keys[operation.scorer]
    column = operation.filter.column
    return next(one for one in setup.keys.values() if column in one.outputs)


def _is_judged(key: ScorerKey, round_: Round) -> bool:
    return any(one.filter is not None and one.filter.column in key.outputs for one in round_.operations)


def _verdicts_before(part: InputPart, setup: FlowSetup, listing: pa.Table) -> Verdicts:
    if setup.before:
        return setup.places.require_state(setup.before, part.name)
    verdicts = Verdicts.all_kept(listing.num_rows)
    problems = listing["problem"].to_pylist()
    unread = np.array([place for place, problem in enumerate(problems) if problem is not None], dtype=np.int64)
    verdicts.end(unread, FAILED, READ_STEP, [""] * len(unread), [problems[place] for place in unread])
    return verdicts


def _answers(part: str, start: int, batch: Batch, name: str, scorer: Scorer, setup: FlowSetup) -> Batch:
    """A scorer's columns for a chunk: those that are stored, and the rest computed and stored."""
    key = setup.keys[name]
    stored = setup.scores.of_part(key, part)
    is_known = stored.known(batch["sha256"])
    if name in setup.retried and is_known.any():
        is_known &= _has_no_error(stored.of(batch["sha256"])[key.error])
    _, first = np.unique(batch["sha256"].astype(str), return_index=True)
    asked = np.sort(np.intersect1d(first, np.flatnonzero(~is_known)))
    if not len(asked):
        return stored.of(batch["sha256"])
    needed = {*setup.inputs.get(name, inputs_of(scorer)), "sha256"}
    given = {column: _column(part, batch, column, setup)[asked] for column in needed}
    made = run_scorer(scorer, given, setup.batch_images.get(name, 64))
    made["sha256"] = given["sha256"]
    setup.scores.add(key, part, start, made)
    place = {sha256: at for at, sha256 in enumerate(made["sha256"])}
    at = np.array([place.get(sha256, -1) for sha256 in batch["sha256"]], dtype=np.int64)
    answers = stored.of(batch["sha256"])
    for column in key.columns:
        filled = empty_like(made[column], len(at)) if not is_known.any() else answers[column]
        filled[at >= 0] = made[column][at[at >= 0]]
        answers[column] = filled
    return answers


def _column(part: str, batch: Batch, column: str, setup: FlowSetup) -> np.ndarray:
    """A column of a chunk; one that was scored in an earlier round comes from the store."""
    if column in batch:
        return batch[column]
    key = next(one for one in setup.keys.values() if column in one.outputs)
    return setup.scores.of_part(key, part).of(batch["sha256"])[column]


def run_scorer(scorer: Scorer, given: Batch, batch_images: int) -> Batch:
    """The columns of a scorer for rows, in the form in which they are stored; NaN without a reason gets one.

    Raises:
        DataError: they are not what it promises.
    """
    length, error_name = len(given["sha256"]), scorer.name + ERROR_SUFFIX
    pieces: list[Batch] = []
    for at in range(0, length, batch_images):
        made = scorer({name: column[at : at + batch_images] for name, column in given.items()})
        _require_columns(scorer, made, min(batch_images, length - at))
        pieces.append(made)
    found = {name: stored_form(np.concatenate([piece[name] for piece in pieces])) for name in scorer.outputs}
    errors = np.concatenate([_errors_of(piece, error_name, scorer.outputs[0]) for piece in pieces])
    for name in scorer.outputs:
        for row in np.flatnonzero(_is_missing(found[name])):
            errors[row] = errors[row] or f"{scorer.name} gave no {name} (NaN)"
    found[error_name] = errors
    return found


def _errors_of(piece: Batch, error_name: str, output: str) -> np.ndarray:
    errors = np.full(len(piece[output]), None, dtype=object)
    if error_name in piece:
        errors[:] = [None if one is None else str(one)[:MAX_REASON_CHARACTERS] for one in piece[error_name]]
    return errors


def _has_no_error(errors: np.ndarray) -> np.ndarray:
    return np.fromiter((one is None for one in errors), dtype=np.bool_, count=len(errors))


def _is_missing(column: np.ndarray) -> np.ndarray:
    if column.ndim == 2:
        return np.asarray(~np.isfinite(column.astype(np.float32)).all(axis=1))
    if column.dtype.kind == "f":
        return ~np.isfinite(column)
    if column.dtype.kind in "iu":
        return np.zeros(len(column), dtype=bool)
    return np.array([one is None or (isinstance(one, float) and math.isnan(one)) for one in column], dtype=bool)


def _require_columns(scorer: Scorer, made: Batch, length: int) -> None:
    lengths = {name: len(made[name]) if name in made else None for name in scorer.outputs}
    if any(one != length for one in lengths.values()):
        raise DataError(
            f"scorer {scorer.name} was given {length} images and returned the columns {lengths}. Scores would stand at "
            "other images: each column must have one value a row. Correct the scorer."
        )
