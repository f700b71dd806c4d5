"""Captions of a set of pictures on one machine: pictures with or without annotations in, samples out.

For sets that are captioned whole, as Objects365-, COCO2017- and SA-1B-Recap. The pictures of VL3-Syn7M are chosen
first, by the flow of the curation, which calls the same scorer. A run that was cut off is started again and asks what
is missing.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vl3.curation.captions.captioner import BASIS_SUFFIX, Captioner
from vl3.curation.captions.records import caption_line
from vl3.curation.scorer import ERROR_SUFFIX
from vl3.data.derive.output import MadeCard, MadeFiles, made_files
from vl3.data.sample.media import MediaContent, media_bytes, media_chunks, media_digest, read_media, resolve_media_path
from vl3.data.sample.problems import ProblemKind, SampleProblem
from vl3.data.sample.records import parse_record
from vl3.errors import DataError

BATCH_PICTURES = 256
"""Pictures that are asked about together; their files are in memory."""
MAX_PICTURE_BYTES = 64 << 20
_ENOUGH = 1000
"""After so many pictures, twice the share that may be bad ends a run before its end."""
Progress = Callable[[int, int], None]
"""Called with the pictures that are done and their number, 0 if it is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecaptionSettings:
    """What becomes of the captions."""

    source: str
    """Name of the dataset."""
    max_bad_fraction: float = 0.05
    """Share of the pictures that may end without a caption; above it nothing is written."""


def recaption(
    pictures: Iterable[tuple[str, str | None]],
    root: Path,
    out: Path,
    captioner: Captioner,
    settings: RecaptionSettings,
    progress: Progress = lambda *_: None,
) -> MadeCard:
    """Make a sample for each picture.

    Args:
        pictures: paths relative to `root`, each with its annotations as JSON (see `annotations`) or None.
        root: the data folder, out of which no path leads.
        out: annotation file to write, with its card and its list of what was left out (see `data.derive.output`).
        captioner: asks for the captions.
        settings: name and bounds.
        progress: told how far it is.

    Raises:
        ConfigError: the endpoint refuses its key or model, or its spend limit is reached; a later run goes on.
        ClusterError: the endpoint is gone; a later run goes on.
        DataError: too many pictures end without a caption, or there is none at all.
        StorageError: a file cannot be written.
    """
    card = MadeCard(maker=captioner.name, sources=[], settings=captioner.settings)
    bases: dict[str, int] = {}
    waiting = iter(pictures)
    with made_files(out, card) as made:
        while batch := list(islice(waiting, BATCH_PICTURES)):
            card.lines += len(batch)
            _caption(list(_readable(batch, root, made)), captioner, settings.source, made, bases)
            progress(card.lines, 0)
            _require_enough(card, settings.max_bad_fraction, is_end=False)
        _require_enough(card, settings.max_bad_fraction, is_end=True)
        card.settings["based_on"] = dict(sorted(bases.items()))
    return card


def _readable(
    batch: Iterable[tuple[str, str | None]], root: Path, made: MadeFiles
) -> Iterator[tuple[str, str | None, bytes, str]]:
    """Path, annotations, bytes and digest of each picture that can be read; the others are refused."""
    for name, annotations in batch:
        try:
            content = read_media(resolve_media_path(root, name, name), name, name, whole_bytes=MAX_PICTURE_BYTES)
            yield name, annotations, _whole(content, name), media_digest(content)
        except SampleProblem as problem:
            made.refuse(problem)


def _whole(content: MediaContent, name: str) -> bytes:
    if media_bytes(content) > MAX_PICTURE_BYTES:
        reason = f"the picture has {media_bytes(content)} bytes, more than {MAX_PICTURE_BYTES}. Make it smaller."
        raise SampleProblem(ProblemKind.TOO_LONG, reason, name)
    return b"".join(media_chunks(content))


def _caption(
    rows: list[tuple[str, str | None, bytes, str]],
    captioner: Captioner,
    source: str,
    made: MadeFiles,
    bases: dict[str, int],
) -> None:
    if not rows:
        return
    columns: dict[str, np.ndarray] = {}
    for position, column in enumerate(("path", "annotations", "bytes", "sha256")):
        columns[column] = np.empty(len(rows), dtype=object)
        columns[column][:] = [row[position] for row in rows]
    found = captioner(columns)
    for number, (name, _, _, sha256) in enumerate(rows):
        caption = found[captioner.name][number]
        if caption is None:
            reason = str(found[f"{captioner.name}{ERROR_SUFFIX}"][number])
            made.note(name, "caption", reason)
            _count(made.card.dropped, f"caption {reason.partition(':')[0]}")
            continue
        basis = str(found[f"{captioner.name}{BASIS_SUFFIX}"][number])
        if " (" in basis:
            made.note(name, "annotations", basis)
        _count(bases, basis.partition(" (")[0] + (", annotations left out" if " (" in basis else ""))
        _add(caption_line(name, sha256, caption, captioner.style, source), name, made)


def _add(line: dict[str, Any], name: str, made: MadeFiles) -> None:
    raw = json.dumps(line, ensure_ascii=False).encode()
    try:
        parse_record(raw, where=name, split="train")
    except SampleProblem as problem:
        made.refuse(problem)
    else:
        made.add(raw)


def _require_enough(card: MadeCard, max_bad_fraction: float, *, is_end: bool) -> None:
    """End a run that goes wrong early rather than at its end.

    Raises:
        DataError: too many pictures have no caption.
    """
    bad = card.lines - card.samples
    if not is_end and (card.lines < _ENOUGH or bad <= 2 * max_bad_fraction * card.lines):
        return
    if bad > max_bad_fraction * card.lines or (is_end and not card.samples):
        counts = {kind: count for kind, (count, _, _) in card.reasons.items()} | card.dropped
        first = next((f" The first: {where}: {reason}" for _, where, reason in card.reasons.values()), "")
        raise DataError(
            f"{bad} of {card.lines} pictures have no caption ({counts}), more than max_bad_fraction="
            f"{max_bad_fraction:g}, so nothing is written. What was answered is kept. Look at the pictures and the "
            f"model's answers.{first}"
        )


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
