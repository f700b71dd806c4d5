"""The answers to held-out samples as item records, the format that every benchmark has."""

from collections.abc import Mapping
from pathlib import Path

from vl3.config.gates import HELDOUT
from vl3.evaluation.items import ItemRecord, items_path, write_items
from vl3.evaluation.result import Answer


def write_heldout(
    answers: Mapping[str, Mapping[int, Answer]], sha256_by_row: Mapping[int, str], out_folder: Path
) -> None:
    """Write the records of each model; its parts are the categories.

    Args:
        answers: answers by model and row.
        sha256_by_row: digest of each sample.
        out_folder: folder of the evaluation.
    """
    for model, by_row in answers.items():
        records = (_record(answer, sha256_by_row[row]) for row, answer in by_row.items())
        write_items(items_path(out_folder, model, HELDOUT), records)


def _record(answer: Answer, sha256: str) -> ItemRecord:
    return ItemRecord(
        benchmark=HELDOUT,
        group=answer.category,
        item_id=answer.sample_id,
        sha256=sha256,
        prompt=answer.prompt,
        media=answer.media,
        reference=answer.answer,
        answer=answer.prediction,
        score=float(answer.correct),
        chance=answer.chance,
        why_no_score="",
        tokens=0,
        seconds=0.0,
    )
