"""Small pictures of the held-out items that a report shows: best, worst, and what the champion answered otherwise."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vl3.config.gates import HELDOUT
from vl3.config.run import RunConfig
from vl3.evaluation.asking import Questions
from vl3.evaluation.candidates import EvaluatedModel, open_candidate
from vl3.evaluation.changes import shown_items
from vl3.evaluation.document import CHAMPION, PICTURES_FILE
from vl3.evaluation.pictures import draw_items
from vl3.evaluation.records import read_records
from vl3.system.files import atomic_write_json


def write_shown_pictures(
    models: Sequence[EvaluatedModel], questions: Questions, config: RunConfig, out_folder: Path
) -> None:
    """Write pictures.json and the pictures that it names.

    Args:
        models: the models that were evaluated, the candidate last.
        questions: the held-out samples that they were asked.
        config: configuration of the run.
        out_folder: the evaluation's folder, which has the item records.

    Raises:
        DataError: a sample cannot be read.
        StorageError: a picture cannot be written.
    """
    records = read_records(out_folder)
    shown = shown_items(records, models[-1].name, CHAMPION)
    wanted = set(_ids(shown))
    rows = {row.sample_id: row.row for row in questions.rows if row.sample_id in wanted}
    settings = open_candidate(models[-1], config).settings
    drawn = draw_items(rows, questions.reader, settings, out_folder)
    atomic_write_json(out_folder / PICTURES_FILE, {HELDOUT: drawn})


def _ids(shown: dict[str, Any]) -> Iterator[str]:
    for one in shown["extremes"]:
        if one["benchmark"] == HELDOUT:
            yield from (item["item_id"] for side in ("best", "worst") for item in one[side])
    yield from (item["item_id"] for item in shown["changes"].get(HELDOUT, {}).get("items", ()))
