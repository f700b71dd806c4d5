"""Runs a maker over files of facts, a line at a time: in memory are one line and what is made of it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vl3.data.derive.facts import Line
from vl3.data.derive.makers import Maker
from vl3.data.derive.output import MadeCard, MadeFiles, made_files
from vl3.data.sample.lines import parse_line, read_lines
from vl3.data.sample.problems import SampleProblem, printable
from vl3.data.sample.records import parse_record
from vl3.errors import DataError

Progress = Callable[[int, int], None]
"""Called with how many are done and the total, 0 if it is not known."""
_REPORT_EVERY = 1000


def make_samples(
    name: str,
    maker: Maker,
    sources: Sequence[Path],
    out: Path,
    *,
    source_name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    dropped: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> MadeCard:
    """Make samples of files of facts.

    Args:
        name: the maker's name, for the card and the ids.
        maker: makes the samples of one line.
        sources: files of facts, one object a line, plain or packed.
        out: annotation file to write; see `output`.
        source_name: `source` of all samples; None leaves the maker's own.
        settings: what the maker was told, for the card.
        dropped: what the maker counts while it runs.
        progress: called now and then.

    Raises:
        ConfigError: `out` exists, or is no name of an annotation file.
        DataError: a file cannot be read, or no sample was made.
        StorageError: the output cannot be written.
    """
    card = MadeCard(maker=name, sources=[path.name for path in sources], settings=dict(settings or {}))
    if source_name is not None:
        card.settings["source"] = source_name
    with made_files(out, card) as made:
        for where, raw in lines_of(sources):
            card.lines += 1
            if progress is not None and card.lines % _REPORT_EVERY == 0:
                progress(card.lines, 0)
            _make_line(raw, where, maker, source_name, made)
        card.dropped = dict(dropped or {})
        require_samples(card)
    return card


def lines_of(sources: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """The lines of files that are not empty, with their places."""
    for path in sources:
        name = printable("/".join(path.parts[-2:]))
        for number, raw in enumerate(read_lines(path), start=1):
            if raw.strip(b" \t\r\n"):
                yield f"{name}:{number}", raw


def require_samples(card: MadeCard) -> None:
    """Raise DataError if there is none."""
    if not card.samples:
        nothing = (0, ", ".join(card.sources), "nothing is left of its lines")
        _, place, reason = next(iter(card.reasons.values()), nothing)
        raise DataError(f"{card.maker}: no sample can be made of {card.lines} lines. {place}: {reason}")


def _make_line(raw: bytes, where: str, maker: Maker, source_name: str | None, made: MadeFiles) -> None:
    try:
        for number, line in enumerate(maker(parse_line(raw, where), where), start=1):
            try:
                made.add(_finished(line, source_name, f"{made.card.lines}-{number}", where))
            except SampleProblem as problem:
                made.refuse(problem)
    except SampleProblem as problem:
        made.refuse(SampleProblem(problem.kind, problem.reason, where))


def _finished(line: Line, source_name: str | None, number: str, where: str) -> bytes:
    """A line with its id, checked as any line of an annotation file is."""
    names = [line["source"]] if source_name is None else [source_name, line["source"]]
    line = {"id": "-".join([*names, number]), **line, "source": names[0]}
    raw = json.dumps(line, ensure_ascii=False).encode()
    parse_record(raw, where=where, split="train")
    return raw
