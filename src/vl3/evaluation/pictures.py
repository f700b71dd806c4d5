"""Sample predictions with small pictures of their media, made from the pixels that are decoded for the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vl3.data.sample.decoded import decode_media
from vl3.data.sample.prepare import PrepareSettings
from vl3.evaluation.heldout import SampleReader
from vl3.evaluation.result import Answer
from vl3.system.files import storage_errors

PREDICTIONS_A_TASK = 6
MAX_WRONG = 3
MAX_FRAMES = 6
MAX_SIDE_PX = 160


def choose_examples(last: Mapping[int, Answer]) -> list[int]:
    """Rows to show: six of each category, at least three of them wrong answers of the last model if it has so many.

    Answers of the rows 0 to 7: wrong right wrong wrong wrong right right right. Shown are 0, 2, 3 and 1, 5, 6.

    Args:
        last: the last model's answers by row, in the order in which they were chosen.
    """
    by_category: dict[str, list[int]] = {}
    for row, answer in last.items():
        by_category.setdefault(answer.category, []).append(row)
    chosen: list[int] = []
    for rows in by_category.values():
        wrong = [row for row in rows if not last[row].correct]
        right = [row for row in rows if last[row].correct]
        shown_right = right[: max(PREDICTIONS_A_TASK - min(len(wrong), MAX_WRONG), 0)]
        shown_wrong = wrong[: PREDICTIONS_A_TASK - len(shown_right)]
        chosen += sorted(shown_wrong + shown_right, key=rows.index)
    return chosen


def describe_examples(
    rows: list[int],
    answers: Mapping[str, Mapping[int, Answer]],
    reader: SampleReader,
    settings: PrepareSettings,
    out_folder: Path,
) -> list[dict[str, Any]]:
    """The predictions of evaluation.json; their pictures are written to out_folder/media.

    Args:
        rows: rows to show.
        answers: answers by model and row.
        reader: reads the dataset.
        settings: decide the size at which frames are shown.
        out_folder: folder of evaluation.json.

    Raises:
        DataError: a sample cannot be read.
        StorageError: a picture cannot be written.
    """
    return [_describe(number, row, answers, reader, settings, out_folder) for number, row in enumerate(rows)]


def draw_items(
    rows: Mapping[str, int], reader: SampleReader, settings: PrepareSettings, out_folder: Path
) -> dict[str, list[str]]:
    """Write small pictures of samples to out_folder/media; paths of each sample's pictures within out_folder.

    Args:
        rows: row by sample id.
        reader: reads the dataset.
        settings: decide the size at which frames are shown.
        out_folder: folder of the evaluation.

    Raises:
        DataError: a sample cannot be read.
        StorageError: a picture cannot be written.
    """
    drawn: dict[str, list[str]] = {}
    for number, (sample_id, row) in enumerate(rows.items()):
        pictures = _pictures(reader, row, settings)
        drawn[sample_id] = [f"media/item-{number:04d}-{index}.png" for index in range(len(pictures))]
        for name, picture in zip(drawn[sample_id], pictures, strict=True):
            _write(picture, out_folder / name)
    return drawn


def _describe(
    number: int,
    row: int,
    answers: Mapping[str, Mapping[int, Answer]],
    reader: SampleReader,
    settings: PrepareSettings,
    out_folder: Path,
) -> dict[str, Any]:
    pictures = _pictures(reader, row, settings)
    media = [f"media/{number:03d}-{index}.png" for index in range(len(pictures))]
    for name, picture in zip(media, pictures, strict=True):
        _write(picture, out_folder / name)
    first = next(iter(answers.values()))[row]
    return {
        "sample_id": first.sample_id,
        "category": first.category,
        "prompt": first.prompt,
        "answer": first.answer,
        "prediction": {name: by_row[row].prediction for name, by_row in answers.items()},
        "correct": {name: by_row[row].correct for name, by_row in answers.items()},
        "media": media,
    }


def _pictures(reader: SampleReader, row: int, settings: PrepareSettings) -> list[np.ndarray]:
    """Up to six evenly spaced pictures of all images and frames: of 10 the numbers 0, 2, 4, 5, 7 and 9."""
    record, media = reader.read(row)
    decoded = decode_media(record, media, settings.data, [settings.merges], picture=settings.picture)
    frames = [frame_HWC for item in decoded.items for frame_HWC in next(iter(item.frames_by_size.values()))]
    places = np.linspace(0, len(frames) - 1, min(MAX_FRAMES, len(frames))).round().astype(int)
    return [frames[place] for place in places]


def _write(picture_HWC: np.ndarray, path: Path) -> None:
    picture = Image.fromarray(picture_HWC)
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, optimize=True)
