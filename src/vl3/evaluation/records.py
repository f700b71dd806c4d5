"""All item records of an evaluation. Without numpy, so that a launcher can read them, too."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vl3.evaluation.items import ITEMS_FOLDER, ItemRecord, read_items

NOT_JUDGED = "not judged"
"""How `why_no_score` begins for an item that waits for a judge."""
Records = Mapping[str, Mapping[str, Sequence[ItemRecord]]]
"""Item records by model and benchmark."""


def read_records(folder: Path) -> dict[str, dict[str, list[ItemRecord]]]:
    """All item records of an evaluation's folder, models and benchmarks in the order of their names.

    Raises:
        DataError: a line is not a record.
    """
    found: dict[str, dict[str, list[ItemRecord]]] = {}
    for path in sorted((folder / ITEMS_FOLDER).glob("*/*.jsonl")):
        found.setdefault(path.parent.name, {})[path.stem] = read_items(path)
    return found


def is_unjudged(item: ItemRecord) -> bool:
    """Whether an item has an answer, but no score because nobody judged it."""
    return item.score is None and item.why_no_score.startswith(NOT_JUDGED)
