"""Hands the kept images to training: one data folder for each dataset.

    syn_short/annotations/train.jsonl           {"id": "9f2c..", "image": ["images/9f/9f2c..jpg"], "conversations": ..}
    syn_short/images/9f/9f2c...jpg              named by digest, so no name comes from the data

The step that validates them writes the corpus that lists them.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vl3.config.curation import CurationConfig
from vl3.curation.places import Places
from vl3.curation.rounds import Round
from vl3.curation.scores import ScorerKey, ScoreStore
from vl3.curation.source import IMAGE_SUFFIXES, InputPart, content_digest, read_part
from vl3.data.derive.facts import PictureFacts, PlacedText
from vl3.data.derive.ocr import caption_with_texts
from vl3.errors import DataError
from vl3.system.files import storage_errors

SOURCE_TEXT = "text"
"""The column of the source's own text."""
_SUFFIXES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
}


def write_datasets(
    parts: Sequence[InputPart],
    config: CurationConfig,
    last: Round,
    keys: Mapping[str, ScorerKey],
    places: Places,
    scores: ScoreStore,
    folder: Path,
) -> dict[str, int]:
    """Write every dataset; returns the number of samples of each.

    An image that stands in the input more than once is handed over once, with the caption of its first place.

    Raises:
        DataError: a kept image has changed since it was scored.
        StorageError: the store fails, or the folder cannot be written.
    """
    with storage_errors(folder):
        for name in config.datasets:
            (folder / name / "annotations").mkdir(parents=True, exist_ok=True)
        files = {
            name: (folder / name / "annotations" / "train.jsonl").open("w", encoding="utf-8")
            for name in config.datasets
        }
    counts = dict.fromkeys(config.datasets, 0)
    try:
        for part in parts:
            _write_part(part, config, last, keys, places, scores, folder, files, counts)
    finally:
        for file in files.values():
            file.close()
    return counts


def line_of(sha256: str, image: str, source: str, category: str, prompt: str, caption: str) -> dict[str, Any]:
    """One line of annotations (docs/data-formats.md)."""
    turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": caption}]
    return {"id": sha256[:32], "image": [image], "source": source, "category": category, "conversations": turns}


def with_texts(caption: str, texts: str, image: str) -> str:
    """A caption with what an `ocr` scorer has read; without anything read the caption alone.

    `A street. The texts in this image are STOP<box>[[16,42,469,188]]</box>.`
    """
    facts = json.loads(texts)
    placed = tuple(PlacedText(box=tuple(one["box"]), text=one["text"]) for one in facts["texts"])
    if not placed:
        return caption
    size = {"width_px": facts["width"], "height_px": facts["height"]}
    return caption_with_texts(PictureFacts(image=image, caption=caption, texts=placed, **size))


def image_name(sha256: str, data: bytes) -> str:
    """Where an image is in a dataset: by its digest, with a suffix by its first bytes."""
    suffix = next((name for start, name in _SUFFIXES.items() if data.startswith(start)), ".img")
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        suffix = ".avif"
    assert suffix == ".img" or suffix in IMAGE_SUFFIXES
    return f"images/{sha256[:2]}/{sha256}{suffix}"


def _write_part(
    part: InputPart,
    config: CurationConfig,
    last: Round,
    keys: Mapping[str, ScorerKey],
    places: Places,
    scores: ScoreStore,
    folder: Path,
    files: Mapping[str, Any],
    counts: dict[str, int],
) -> None:
    listing = places.require_listing(part.name)
    rows = np.flatnonzero(places.require_state(last.key, part.name).is_kept)
    sha256_of = {listing["key"][int(row)].as_py(): listing["sha256"][int(row)].as_py() for row in rows}
    if not sha256_of:
        return
    wanted = {column for one in config.datasets.values() for column in (one.caption, one.texts)} - {"", SOURCE_TEXT}
    words = {column: _words(part, column, list(sha256_of.values()), keys, scores) for column in wanted}
    scores.forget()
    for row in read_part(part, frozenset(sha256_of), max_bytes=config.max_image_bytes):
        sha256 = sha256_of[row.key]
        if row.data is None or content_digest(row.data) != sha256:
            raise DataError(
                f"{row.where}: the image has changed since it was scored ({row.problem or 'other bytes'}), so its "
                "scores are another image's. Restore it, or curate the changed data in a new run."
            )
        _hand_over(row.data, sha256, row.text, config, words, folder, files, counts)


def _hand_over(
    data: bytes,
    sha256: str,
    text: str,
    config: CurationConfig,
    words: Mapping[str, Mapping[str, str]],
    folder: Path,
    files: Mapping[str, Any],
    counts: dict[str, int],
) -> None:
    image, first = image_name(sha256, data), None
    for name, one in config.datasets.items():
        caption = text if one.caption == SOURCE_TEXT else words[one.caption][sha256]
        if caption and one.texts:
            caption = with_texts(caption, words[one.texts][sha256], image)
        path = folder / name / image
        if not caption or path.exists():
            continue
        with storage_errors(path, needed_bytes=len(data)):
            path.parent.mkdir(parents=True, exist_ok=True)
            if first is None:
                path.write_bytes(data)
                first = path
            else:
                _link(first, path)
            line = line_of(sha256, image, name, one.category, one.prompt, caption)
            files[name].write(json.dumps(line, ensure_ascii=False) + "\n")
        counts[name] += 1


def _link(source: Path, target: Path) -> None:
    """The same bytes at a second place, once on the disk where that is possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _words(
    part: InputPart, column: str, sha256s: list[str], keys: Mapping[str, ScorerKey], scores: ScoreStore
) -> dict[str, str]:
    """A column of words by image."""
    key = next(one for one in keys.values() if column in one.outputs)
    return dict(zip(sha256s, scores.of_part(key, part.name).of(sha256s)[column], strict=True))
