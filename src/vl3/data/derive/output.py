"""The files that `vl3 data make` writes, which appear together at the end or not at all.

<out>/train.jsonl           the samples; packed if the name ends with .gz or .zst
<out>/train.refused.jsonl   each line that gave none, with its place, the kind and the reason
<out>/train.card.json       what was made from what, with the counts; written last
"""

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from vl3.data.sample.problems import SampleProblem
from vl3.errors import ConfigError
from vl3.system.files import atomic_write_json, sibling, storage_errors

CARD_SUFFIX, REFUSED_SUFFIX = "card.json", "refused.jsonl"
_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


@dataclass(kw_only=True, slots=True)
class MadeCard:
    """What was made, from what, and what was left out."""

    maker: str
    sources: list[str]
    """Names of the files that were read."""
    settings: dict[str, Any] = field(default_factory=dict)
    lines: int = 0
    """Lines that were read, without empty ones."""
    samples: int = 0
    """Lines that were written."""
    refused: int = 0
    reasons: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    """By kind of refusal: how many, and the first place and reason."""
    dropped: dict[str, int] = field(default_factory=dict)
    """What a maker left out of good lines, by name."""
    funnel: list[dict[str, Any]] = field(default_factory=list)
    """Of cleaning: for each rule in turn how many lines it dropped and how many are left."""


class MadeFiles:
    """The files while they are written. Use `made_files`."""

    def __init__(self, samples: BinaryIO, refusals: BinaryIO, card: MadeCard) -> None:
        self._samples, self._refusals = samples, refusals
        self.card = card

    def add(self, line: bytes) -> None:
        """Write a sample's line, without its end."""
        self._samples.write(line + b"\n")
        self.card.samples += 1

    def refuse(self, problem: SampleProblem) -> None:
        """Write down why a line gives no sample."""
        self.card.refused += 1
        kind = problem.kind.value
        count, where, reason = self.card.reasons.get(kind, (0, problem.where, problem.reason))
        self.card.reasons[kind] = (count + 1, where, reason)
        self.note(problem.where, kind, problem.reason)

    def note(self, where: str, kind: str, reason: str) -> None:
        """Write down why a line is left out."""
        data = {"where": where, "kind": kind, "reason": reason}
        self._refusals.write(json.dumps(data, ensure_ascii=False).encode() + b"\n")


@contextmanager
def made_files(out: Path, card: MadeCard) -> Iterator[MadeFiles]:
    """Files to write, which get their names when the block ends without an error.

    Raises:
        ConfigError: the name is not that of an annotation file.
        StorageError: a file cannot be written.
    """
    refused_path, card_path = beside(out, REFUSED_SUFFIX), beside(out, CARD_SUFFIX)
    for path in (out, refused_path, card_path):
        if path.exists():
            raise ConfigError(f"{path} exists and is never overwritten. Remove it, or choose another --out.")
    samples, refusals = sibling(out), sibling(refused_path)
    try:
        with storage_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            with _packed(samples, out.suffix) as samples_file, refusals.open("wb") as refusals_file:
                made = MadeFiles(samples_file, refusals_file, card)
                yield made
            if refusals.stat().st_size:
                refusals.replace(refused_path)
            samples.replace(out)
        atomic_write_json(card_path, asdict(card))
    finally:
        samples.unlink(missing_ok=True)
        refusals.unlink(missing_ok=True)


def beside(out: Path, suffix: str) -> Path:
    """The name of a file that belongs to an annotation file: `a/train.jsonl.gz`, `card.json` give `a/train.card.json`.

    Raises:
        ConfigError: the name is not that of an annotation file.
    """
    stem, dot, _ = out.name.partition(".jsonl")
    if not stem or not dot or not out.name.endswith(_SUFFIXES):
        raise ConfigError(f"{out} is no name of an annotation file. End it with one of {', '.join(_SUFFIXES)}.")
    return out.with_name(f"{stem}.{suffix}")


@contextmanager
def _packed(path: Path, suffix: str) -> Iterator[BinaryIO]:
    """A file to write, packed as the suffix says; equal content gives equal bytes."""
    with ExitStack() as stack:
        file = stack.enter_context(path.open("wb"))
        if suffix == ".gz":
            packed = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
            yield stack.enter_context(io.BufferedWriter(cast(io.RawIOBase, packed), 1 << 20))
        elif suffix == ".zst":
            import pyarrow

            stream = stack.enter_context(pyarrow.CompressedOutputStream(file, "zstd"))
            yield stack.enter_context(io.BufferedWriter(cast(io.RawIOBase, stream), 1 << 20))
        else:
            yield file
