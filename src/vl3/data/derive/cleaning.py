"""Cleaning of instruction sets (paper sec. 3.2.3): two passes over the lines, and a byte of memory on disk for each.

The first pass gives each line a verdict: kept, or the rule that drops it. Kept lines leave keys, by which repeats and
contradictions are found; those change verdicts. The second pass copies what is kept, byte for byte.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl3.data.derive.output import MadeCard, MadeFiles, made_files
from vl3.data.derive.repeats import Contradictions, Repeats
from vl3.data.derive.rules import DEFAULT_RULES, DuplicatesRule, RepeatRule, Rules, read_rules, texts_of
from vl3.data.derive.runner import Progress, lines_of, require_samples
from vl3.data.sample.problems import SampleProblem
from vl3.data.sample.records import parse_record
from vl3.errors import DataError
from vl3.system.folders import scratch_folder

_KEPT, _REFUSED = 0, 255
_REPORT_EVERY = 1000
_COUNTED_AT_ONCE = 1 << 20
Verdicts = NDArray[np.uint8]
"""One for each line: kept, the place of a rule from 1, or refused."""


def clean(
    sources: Sequence[Path], out: Path, *, rules_path: Path = DEFAULT_RULES, progress: Progress | None = None
) -> MadeCard:
    """Copy the lines of annotation files that no rule drops.

    Args:
        sources: annotation files, plain or packed; repeats are found across them.
        out: annotation file to write; see `output`.
        rules_path: YAML file with the rules.
        progress: called now and then with lines done and in all; the total is known in the second pass.

    Raises:
        ConfigError: a rule is wrong, or `out` exists.
        DataError: a file cannot be read or changes meanwhile, or nothing is kept.
        StorageError: the output cannot be written.
    """
    rules = read_rules(rules_path)
    card = MadeCard(maker="clean", sources=[path.name for path in sources], settings={"rules": rules_path.name})
    before = _states(sources)
    with made_files(out, card) as made, scratch_folder(out, "vl3-clean") as scratch:
        cleaner = _Cleaner(rules, sources, made, scratch, progress)
        cleaner.judge()
        with cleaner.verdicts() as verdicts:
            cleaner.compare(verdicts)
            cleaner.copy(verdicts)
            card.funnel = funnel(rules, verdicts)
        if _states(sources) != before:
            raise DataError(f"{', '.join(card.sources)}: changed while being read. Run again when nothing writes them.")
        require_samples(card)
    return card


def funnel(rules: Rules, verdicts: Verdicts) -> list[dict[str, str | int]]:
    """How many lines each rule dropped and how many were left after it; the first row is of lines that are none."""
    starts = range(0, len(verdicts), _COUNTED_AT_ONCE)  # numpy counts in copies of eight bytes
    counts = sum(
        (np.bincount(verdicts[start : start + _COUNTED_AT_ONCE], minlength=_REFUSED + 1) for start in starts),
        np.zeros(_REFUSED + 1, np.int64),
    )
    left = int(len(verdicts) - counts[_REFUSED])
    rows: list[dict[str, str | int]] = [
        {"rule": "not a sample", "dropped": int(counts[_REFUSED]), "left": left, "reason": "the line cannot be read"}
    ]
    for place, rule in enumerate(rules.all, start=1):
        left -= int(counts[place])
        rows.append({"rule": rule.name, "dropped": int(counts[place]), "left": left, "reason": rule.reason})
    return rows


class _Cleaner:
    """One run."""

    def __init__(
        self, rules: Rules, sources: Sequence[Path], made: MadeFiles, scratch: Path, progress: Progress | None
    ) -> None:
        self._rules, self._sources, self._made = rules, sources, made
        self._progress = progress or _silent
        self._verdicts_path = scratch / "verdicts"
        self._repeats = [
            (place, _comparison(rule, scratch / str(place)))
            for place, rule in enumerate(rules.of_all, start=len(rules.of_line) + 1)
        ]

    def judge(self) -> None:
        """The first pass."""
        card = self._made.card
        with self._verdicts_path.open("wb") as file:
            for where, raw in lines_of(self._sources):
                file.write(bytes((self._verdict(raw, where, card.lines),)))
                card.lines += 1
                if card.lines % _REPORT_EVERY == 0:
                    self._progress(card.lines, 0)

    @contextmanager
    def verdicts(self) -> Iterator[Verdicts]:
        """The verdicts, which can be changed."""
        if not self._made.card.lines:  # an empty file cannot be mapped
            yield np.empty(0, np.uint8)
            return
        yield np.memmap(self._verdicts_path, np.uint8, "r+")

    def compare(self, verdicts: Verdicts) -> None:
        """Drop repeats and contradictions; a line keeps the verdict of the first rule that drops it."""
        for place, repeats in self._repeats:
            for lines in repeats.found():
                lines = np.unique(lines)
                verdicts[lines[verdicts[lines] == _KEPT]] = place

    def copy(self, verdicts: Verdicts) -> None:
        """The second pass."""
        first_of_all = len(self._rules.of_line) + 1
        number = -1
        for number, (where, raw) in enumerate(lines_of(self._sources)):
            if number >= len(verdicts):
                break
            verdict = int(verdicts[number])
            if verdict == _KEPT:
                self._made.add(raw.rstrip(b"\r\n"))
            elif first_of_all <= verdict < _REFUSED:
                rule = self._rules.all[verdict - 1]
                self._made.note(where, rule.name, rule.reason)
            if number % _REPORT_EVERY == 0:
                self._progress(number, len(verdicts))

    def _verdict(self, raw: bytes, where: str, line: int) -> int:
        try:
            record = parse_record(raw, where=where, split="train")
        except SampleProblem as problem:
            self._made.refuse(problem)
            return _REFUSED
        texts = texts_of(record)
        for place, rule in enumerate(self._rules.of_line, start=1):
            if (found := rule.finding(texts)) is not None:
                self._made.note(where, rule.name, f"{found}: {rule.reason}")
                return place
        for _, repeats in self._repeats:
            repeats.add(record, line)
        return _KEPT


def _silent(_done: int, _total: int) -> None:
    """Report no progress."""


def _comparison(rule: RepeatRule, folder: Path) -> Repeats | Contradictions:
    return Repeats(folder) if isinstance(rule, DuplicatesRule) else Contradictions(folder, rule)


def _states(sources: Sequence[Path]) -> list[tuple[int, int, int]]:
    """Size, time of change and inode of each file; zeros where there are none, as reading it says so."""
    states = []
    for path in sources:
        try:
            facts = path.stat()
            states.append((facts.st_size, facts.st_mtime_ns, facts.st_ino))
        except OSError:
            states.append((0, 0, 0))
    return states
