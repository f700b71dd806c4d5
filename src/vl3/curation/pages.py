"""Small pictures for the report: examples of what each step kept and dropped, and a contact sheet of each cluster."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vl3.config.curation import CLUSTERS, CurationConfig
from vl3.curation.clusters import MEMBERS
from vl3.curation.places import Places
from vl3.curation.rounds import Round
from vl3.curation.source import InputPart, read_part
from vl3.data.sample.image import decode_image
from vl3.data.sample.problems import SampleProblem
from vl3.store.objects import open_store
from vl3.store.uris import join_uri
from vl3.system.files import atomic_write_json

PICTURES_FILE = "pictures.json"
THUMB_PX = 96
MAX_SHEETS = 24
"""Clusters that have a contact sheet."""
_SHEET_IMAGES = 12


def write_pictures(
    parts: Sequence[InputPart],
    config: CurationConfig,
    rounds: Sequence[Round],
    facts: Mapping[str, Any],
    places: Places,
    folder: Path,
) -> None:
    """Write pictures.json: `examples`, thumbnails by part and key, and `clusters`, the members on each sheet.

    Raises:
        StorageError: the store fails.
    """
    sheets = {
        one.closing: _members(parts, one, places)
        for one in rounds
        if one.closing and config.steps[one.closing].kind == CLUSTERS
    }
    wanted: dict[str, set[str]] = {}
    for shown in facts["examples"].values():
        for one in shown:
            wanted.setdefault(one["part"], set()).add(one["key"])
    for clusters in sheets.values():
        for members in clusters:
            for one in members["images"]:
                wanted.setdefault(one["part"], set()).add(one["key"])
    thumbs = {part.name: _thumbs(part, wanted[part.name], config) for part in parts if part.name in wanted}
    atomic_write_json(folder / PICTURES_FILE, {"thumbs": thumbs, "clusters": sheets})


def thumbnail(data: bytes) -> str:
    """A small JPEG as a data: address, decoded with the limits of all images.

    Raises:
        SampleProblem: it cannot be decoded.
    """
    image = Image.fromarray(decode_image(data, "example"))
    image.thumbnail((THUMB_PX, THUMB_PX))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _thumbs(part: InputPart, keys: set[str], config: CurationConfig) -> dict[str, str]:
    found = {}
    for row in read_part(part, frozenset(keys), max_bytes=config.max_image_bytes):
        if row.data is not None:
            try:
                found[row.key] = thumbnail(row.data)
            except SampleProblem:
                continue  # it is shown by its reason alone
    return found


def _members(parts: Sequence[InputPart], round_: Round, places: Places) -> list[dict[str, Any]]:
    """The largest clusters, each with some members from the nearest to the centre on."""
    store = open_store(join_uri(places.uri, "clusters", round_.closed_key, MEMBERS))
    sizes: dict[int, int] = {}
    best: dict[int, list[tuple[float, str, int]]] = {}
    offset = 0
    for part in parts:
        data = store.read(f"{part.name}.npy")
        length = places.require_listing(part.name).num_rows
        records = np.load(io.BytesIO(data), allow_pickle=False) if data is not None else []
        for record in records:
            cluster = int(record["cluster"])
            sizes[cluster] = sizes.get(cluster, 0) + 1
            found = best.setdefault(cluster, [])
            found.append((-float(record["similarity"]), part.name, int(record["position"]) - offset))
            if len(found) > 4 * _SHEET_IMAGES:
                best[cluster] = sorted(found)[:_SHEET_IMAGES]
        offset += length
    largest = sorted(sizes, key=lambda one: (-sizes[one], one))[:MAX_SHEETS]
    return [
        {
            "cluster": cluster,
            "size": sizes[cluster],
            "images": [
                {"part": part, "key": places.require_listing(part)["key"][row].as_py(), "similarity": round(-near, 4)}
                for near, part, row in sorted(best[cluster])[:_SHEET_IMAGES]
            ],
        }
        for cluster in largest
    ]
