"""One record for each question that a model was asked: what was asked, answered and scored, and at what expense.

Every benchmark writes the same records, the held-out one and those of the catalogue, so that statistics, gates, the
report and a resumed evaluation read one format: `items/MODEL/BENCHMARK.jsonl`, a line an item, in the order of ids.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ITEMS_FOLDER = "items"
"""The folder of an evaluation that holds a folder of records for each model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemRecord:
    """One question to one model."""

    benchmark: str
    """Name of the benchmark in the catalogue, or `heldout`."""
    group: str
    """The benchmark's part that has a score of its own: a category, subset or task; empty if there are no parts."""
    item_id: str
    """Unique within the benchmark."""
    sha256: str
    """Digest of the question, its reference and its media: equal ids of another copy of the data may differ."""
    prompt: str
    """The question as text, a tag for each medium."""
    media: tuple[str, ...]
    """Names of the media within the benchmark's data."""
    reference: str
    """The right answer as it is judged."""
    answer: str | None
    """What the model generated; None if it failed."""
    score: float | None
    """What the judging gives, 1 for right; None if the item failed or was not judged."""
    chance: float | None
    """Score of guessing; None if it is unknown."""
    why_no_score: str
    """Why there is no score: the failure, or `not judged: ...`; empty if there is one."""
    tokens: int
    """Number of tokens generated."""
    seconds: float
    """Time spent on this item, its share of a batch; the only field in which two equal runs may differ."""


def items_path(folder: Path, model: str, benchmark: str) -> Path:
    """Where an evaluation keeps the records of a model and a benchmark."""
    return folder / ITEMS_FOLDER / model / f"{benchmark}.jsonl"


def write_items(path: Path, items: Iterable[ItemRecord]) -> None:
    """Write records in the order of their ids, so that two runs that answer alike write alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(item), ensure_ascii=False) for item in sorted(items, key=lambda item: item.item_id)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_items(path: Path) -> list[ItemRecord]:
    """The records of a file.

    Raises:
        DataError: a line is not a record; the message names file and line.
    """
    from vl3.errors import DataError

    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            items.append(item_from_fields(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}:{number} is not the record of an evaluated item ({error}), so its scores cannot be trusted. "
                "Run the evaluation again."
            ) from error
    return items


def item_from_fields(fields: dict[str, Any]) -> ItemRecord:
    """A record from its JSON data.

    Raises:
        KeyError: it has no media.
        TypeError: another field is missing or unknown.
    """
    return ItemRecord(**{**fields, "media": tuple(fields["media"])})
