"""The input of a curation in parts: lines of annotations with their images, or tar shards as img2dataset writes them.

    annotations/train.jsonl, 2500 lines, part_images=1000     train-000000, train-000001, train-000002
    00000.tar, 00001.tar (0001.jpg, 0001.txt, 0001.json ...)  00000, 00001

A part is a unit of work: its name and its place, nothing of the machine. A row is one image with its text.
"""

import hashlib
import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vl3.data.build.source import open_source, source_digest
from vl3.data.build.units import Annotations, Unit, find_annotations_of, find_units
from vl3.data.sample.lines import BYTE_ORDER_MARK, LINE_ERRORS, is_blank, line_error, lines_of, unpacked
from vl3.data.sample.media import MediaContent, media_bytes, open_media
from vl3.data.sample.problems import SampleProblem, printable
from vl3.data.sample.records import Record, read_record
from vl3.errors import DataError, StorageError
from vl3.store.objects import open_store
from vl3.store.reader import open_range
from vl3.store.uris import join_uri, scheme_of
from vl3.system.uris import file_path

MAX_TEXT_CHARACTERS = 4096
"""A longer text is cut: models read less, and a hostile one could fill the disk."""
_TEXT_BYTES = 1 << 16
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2")


@dataclass(frozen=True, kw_only=True, slots=True)
class InputPart:
    """One unit of work of the input."""

    name: str
    """Its name in the store; lower-case letters, digits, '-', '_'."""
    source_uri: str
    """Where the media are."""
    shard: str = ""
    """Key of the tar shard; empty for lines of annotations."""
    units: tuple[Unit, ...] = ()
    """The lines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputRow:
    """One image of a part."""

    key: str
    """Which image it is within its part: the member of the tar, or line and place in it."""
    where: str
    """What messages call it."""
    text: str
    """Its text in the source; empty if there is none."""
    data: bytes | None
    """The file; None if it could not be read."""
    problem: str = ""
    """Why not."""


def find_parts(uri: str, part_images: int) -> list[InputPart]:
    """The parts of a folder or bucket, in order.

    Raises:
        DataError: there are neither annotations nor tar shards.
        StorageError: the store fails.
    """
    shards = [key for key in _top_keys(uri) if key.endswith(".tar")]
    if shards:
        return [
            InputPart(name=_part_name(PurePosixPath(key).stem, i), source_uri=uri, shard=key)
            for i, key in enumerate(shards)
        ]
    # What is held out is measured on, and never trained on.
    units = find_units([_plain(one) for one in find_annotations_of(uri, None) if one.split == "train"])
    size = max(1, part_images // 128)
    return [
        InputPart(name=f"lines-{number:06d}", source_uri=uri, units=tuple(units[first : first + size]))
        for number, first in enumerate(range(0, len(units), size))
    ]


def held_out_records(uri: str) -> Iterator[Record]:
    """The samples of a collection that are measured on, packed or not; bad lines are measured on by nobody.

    Raises:
        DataError: the held-out annotations cannot be read.
        StorageError: the store fails.
    """
    annotations = open_source(uri).annotations("heldout")
    if annotations is None:
        return
    name = f"annotations/{PurePosixPath(annotations).name}"
    try:
        with open_range(annotations) as packed, unpacked(packed) as file:
            for number, (line, _) in enumerate(lines_of(file), start=1):
                line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
                if is_blank(line):
                    continue
                record = read_record(line, where=f"{name}:{number}", split="heldout")
                if isinstance(record, Record):
                    yield record
    except LINE_ERRORS as error:
        raise DataError(
            f"{annotations} cannot be read ({line_error(error)}), so what is measured on could not be kept out of "
            "training. Restore the file."
        ) from error


def input_digest(uri: str) -> str:
    """Digest of what is at a URI, without reading the images (vl3.data.build.source)."""
    return source_digest(uri)


def read_part(part: InputPart, wanted: frozenset[str] | None = None, *, max_bytes: int) -> Iterator[InputRow]:
    """The rows of a part in order; with `wanted` only those with these keys.

    Raises:
        DataError: the shard or the annotations cannot be read at all.
        StorageError: the store fails.
    """
    rows = _read_shard(part, wanted, max_bytes) if part.shard else _read_lines(part, wanted, max_bytes)
    yield from rows


def clean_text(text: Any) -> str:
    r"""A text of the source that every later step can hold: no control characters or half surrogate pairs, not endless.

    "a\x00cat\n on\ud800 a mat" is "a cat on a mat".
    """
    if not isinstance(text, str):
        return ""
    text = text[: 4 * MAX_TEXT_CHARACTERS]
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_TEXT_CHARACTERS]


def _top_keys(uri: str) -> list[str]:
    if scheme_of(uri) == "file":
        folder = file_path(uri)
        if not folder.is_dir():
            raise DataError(f"{folder}: the folder does not exist. Correct DATA.")
        return sorted(path.name for path in folder.iterdir() if path.is_file())
    return [key for key in open_store(uri).list() if "/" not in key]


def _part_name(stem: str, number: int) -> str:
    """A name that no two shards share: names of shards come from data."""
    safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in stem.lower())[:40]
    return f"shard-{number:06d}-{safe}"


def _plain(annotations: Annotations) -> Annotations:
    if annotations.uri.endswith((".gz", ".zst")):
        raise DataError(
            f"{annotations.uri} is packed, and parts of it cannot be read alone. Unpack it, then curate again."
        )
    return annotations


def _read_lines(part: InputPart, wanted: frozenset[str] | None, max_bytes: int) -> Iterator[InputRow]:
    source = open_source(part.source_uri)
    for unit in part.units:
        for record in unit.read():
            if not isinstance(record, Record):
                if wanted is None or record.where in wanted:
                    yield InputRow(key=record.where, where=record.where, text="", data=None, problem=record.reason)
                continue
            keys = [_line_key(record, place) for place in range(len(record.images))]
            if not keys or (wanted is not None and not wanted.intersection(keys)):
                continue
            yield from _images_of(source, record, keys, wanted, max_bytes)


def _line_key(record: Record, place: int) -> str:
    return f"{record.where}#{place}"


def _images_of(
    source: Any, record: Record, keys: list[str], wanted: frozenset[str] | None, max_bytes: int
) -> Iterator[InputRow]:
    text = clean_text(record.answer) if len(keys) == 1 else ""
    try:
        with source.opened(record) as (opened, media):
            for key, path in zip(keys, opened.images, strict=True):
                if wanted is None or key in wanted:
                    yield _row(key, f"{record.where} {printable(path)}", text, media[path], max_bytes)
    except SampleProblem as problem:
        for key in keys:
            if wanted is None or key in wanted:
                yield InputRow(key=key, where=record.where, text=text, data=None, problem=str(problem))


def _row(key: str, where: str, text: str, content: MediaContent, max_bytes: int) -> InputRow:
    size = media_bytes(content)
    if size > max_bytes:
        problem = f"the file has {size} bytes, more than max_image_bytes={max_bytes}"
        return InputRow(key=key, where=where, text=text, data=None, problem=problem)
    with open_media(content) as file:
        return InputRow(key=key, where=where, text=text, data=file.read())


def _read_shard(part: InputPart, wanted: frozenset[str] | None, max_bytes: int) -> Iterator[InputRow]:
    """Images of a tar in its order; members of one sample share a stem: 0001.jpg, 0001.txt, 0001.json."""
    uri = join_uri(part.source_uri, part.shard)
    sample: dict[str, Any] = {}
    try:
        with open_range(uri) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                stem, suffix = posixpath.splitext(member.name)
                if sample.get("stem") != stem:
                    yield from _sample_row(sample, part, wanted)
                    sample = {"stem": stem}
                _take(sample, tar, member, suffix.lower(), wanted, max_bytes)
            yield from _sample_row(sample, part, wanted)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{uri}: the shard is damaged ({type(error).__name__}: {error}). Replace it, or remove it from the folder: "
            "a part of it would be curated as if it were all."
        ) from error
    except OSError as error:
        raise StorageError(f"{uri} cannot be read ({error}). Correct its permissions, or check the disk.") from error


def _take(
    sample: dict[str, Any],
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    suffix: str,
    wanted: frozenset[str] | None,
    max_bytes: int,
) -> None:
    if suffix in IMAGE_SUFFIXES and "name" not in sample:
        sample["name"] = member.name
        if wanted is not None and member.name not in wanted:
            return
        if member.size > max_bytes:
            sample["problem"] = f"the file has {member.size} bytes, more than max_image_bytes={max_bytes}"
            return
        file = tar.extractfile(member)
        assert file is not None
        sample["data"] = file.read()
    elif suffix in (".txt", ".json"):
        file = tar.extractfile(member)
        assert file is not None
        sample[suffix] = file.read(_TEXT_BYTES)


def _sample_row(sample: dict[str, Any], part: InputPart, wanted: frozenset[str] | None) -> Iterator[InputRow]:
    if "name" not in sample or (wanted is not None and sample["name"] not in wanted):
        return
    yield InputRow(
        key=sample["name"],
        where=f"{part.shard}:{printable(sample['name'])}",
        text=_text_of(sample),
        data=sample.get("data"),
        problem=sample.get("problem", ""),
    )


def _text_of(sample: dict[str, Any]) -> str:
    if ".txt" in sample:
        return clean_text(sample[".txt"].decode("utf-8", "replace"))
    try:
        body = json.loads(sample.get(".json", b"{}"))
        return clean_text(body.get("caption") or body.get("text")) if isinstance(body, dict) else ""
    except (ValueError, RecursionError):
        return ""


def content_digest(data: bytes) -> str:
    """SHA-256 (hex) of an image file."""
    return hashlib.sha256(data).hexdigest()
