"""Imports a dataset: its items become lines of our annotation format, with their media beside them and a card.

    <out>/annotations/train.jsonl.gz   one line for each good sample
    <out>/...                          media that the lines name: linked, or copied where a link is not possible
    <out>/extracted/000000/...         media that were embedded in the dataset's files
    <out>/refused.jsonl                each refused item or line with its place, kind and reason
    <out>/dataset.json                 the card: name, licence, counts, the reasons of refusals

One item at a time is in memory. With `--out` equal to `--root` media stay where they are.
"""

import gzip
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from vl3.data.catalogue.adapter import Adapter, Folder, Item
from vl3.data.catalogue.entry import Entry, make_adapter
from vl3.data.sample.clips import list_frames
from vl3.data.sample.media import resolve_media_folder, resolve_media_path
from vl3.data.sample.problems import MAX_PATH_CHARACTERS, ProblemKind, SampleProblem, printable, shown
from vl3.data.sample.records import annotations_file, parse_record
from vl3.errors import ConfigError, DataError
from vl3.store.objects import Store, open_store
from vl3.store.uris import scheme_of
from vl3.system.files import atomic_write_json, storage_errors
from vl3.system.folders import scratch_folder, whole_folder
from vl3.system.uris import file_path

CARD_NAME = "dataset.json"
REFUSED_NAME = "refused.jsonl"
ANNOTATIONS = annotations_file("train") + ".gz"
_EXTRACTED = "extracted"
_FILES_A_FOLDER = 1000
_REPORT_EVERY = 1000
_LAYOUT_ERRORS = (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError, OverflowError)
"""What an adapter's code runs into when an item is not as the layout says."""


@dataclass(kw_only=True, slots=True)
class Card:
    """What an import found; written as `dataset.json`."""

    name: str
    title: str
    licence: str
    home: str
    format: str
    stage: int | None
    items: int = 0
    """Items of the dataset's files."""
    samples: int = 0
    """Lines written."""
    refused: int = 0
    """Items and lines that are not used; all are in refused.jsonl."""
    media_files: int = 0
    """Files placed, by name; a file of several samples counts once for each time it is placed."""
    categories: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, list[Any]] = field(default_factory=dict)
    """By kind of refusal: its count, and the first place and reason."""


def import_dataset(
    entry: Entry, root: Path, out_uri: str, *, stage: int | None = None, progress: Callable[[int], None] | None = None
) -> Card:
    """Import a dataset folder.

    Args:
        entry: the dataset's entry of the catalogue, or one's own.
        root: folder with its files as they are published.
        out_uri: folder to make, file:// or s3://; or the root itself.
        stage: stage of the paper whose options count, such as its caption.
        progress: called with the number of items read, now and then.

    Raises:
        ConfigError: the entry has no adapter, or its options are wrong.
        DataError: a file of the layout is missing or damaged, or no sample is good.
        StorageError: the output cannot be written.
    """
    folder, adapter = Folder(root.resolve()), make_adapter(entry, stage)
    with _target(folder.root, out_uri) as target:
        card = Card(
            name=entry.name,
            title=entry.title or entry.name,
            licence=entry.licence,
            home=entry.home,
            format=entry.format or "",
            stage=stage,
        )
        _Import(entry, adapter, folder, target, card).run(progress or (lambda _: None))
        if not card.samples:
            place, reason = next((first for _, first in card.reasons.values()), ("", "its files have no items"))
            raise DataError(f"{entry.name}: no sample is good. {place}: {reason}")
        target.write_json(CARD_NAME, asdict(card))
    return card


class _Target:
    """Where an import goes: a local folder, from which each file may go on to a store."""

    def __init__(self, folder: Path, source: Path, store: Store | None) -> None:
        self.folder, self._source, self._store = folder, source, store

    def place(self, path: Path, name: str) -> None:
        """Bring a file of the dataset in under its name."""
        if self.folder == self._source:
            return
        if self._store is not None:
            if not self._store.exists(name):
                self._store.put_file(path, name)
            return
        target = self.folder / name
        if target.exists():
            return
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except OSError:  # another file system, or one without links
                shutil.copyfile(path, target)

    def write_media(self, name: str, content: bytes) -> None:
        """Write a file that was embedded."""
        target = self.folder / name
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        self.publish(name)
        if self._store is not None:
            target.unlink()

    def write_json(self, name: str, data: Any) -> None:
        """Write a small JSON file."""
        atomic_write_json(self.folder / name, data)
        self.publish(name)

    def publish(self, name: str) -> None:
        """Pass a finished file of the folder on to the store."""
        if self._store is not None:
            self._store.put_file(self.folder / name, name)


@contextmanager
def _target(root: Path, out_uri: str) -> Iterator[_Target]:
    if scheme_of(out_uri) == "s3":
        with scratch_folder(None, "vl3-import") as scratch:
            yield _Target(scratch, root, open_store(out_uri))
        return
    out = file_path(out_uri)
    if out.resolve() == root:
        if (root / CARD_NAME).exists() or (root / ANNOTATIONS).exists():
            raise ConfigError(f"{root} has been imported already. Remove {CARD_NAME} and {ANNOTATIONS} to do it again.")
        yield _Target(root, root, None)
        return
    if out.resolve().is_relative_to(root):
        raise ConfigError(f"{out} is inside of the dataset's folder {root}. Choose a folder outside, or {root} itself.")
    with whole_folder(out) as folder:
        yield _Target(folder, root, None)


class _Import:
    """One run over a dataset's items."""

    def __init__(self, entry: Entry, adapter: Adapter, folder: Folder, target: _Target, card: Card) -> None:
        self._entry, self._adapter, self._folder = entry, adapter, folder
        self._target, self._card = target, card
        self._categories: Counter[str] = Counter()
        self._extracted = 0

    def run(self, progress: Callable[[int], None]) -> None:
        """Write lines, media and refusals."""
        annotations, refused = self._target.folder / ANNOTATIONS, self._target.folder / REFUSED_NAME
        with storage_errors(annotations):
            annotations.parent.mkdir(parents=True, exist_ok=True)
            with (
                annotations.open("wb") as packed,
                gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as lines,
                refused.open("w", encoding="utf-8") as refusals,
            ):
                for item in self._adapter.items(self._folder):
                    self._card.items += 1
                    if self._card.items % _REPORT_EVERY == 0:
                        progress(self._card.items)
                    for found in self._samples(item):
                        if isinstance(found, SampleProblem):
                            refusals.write(self._note(found))
                        else:
                            lines.write(json.dumps(found, ensure_ascii=False).encode() + b"\n")
                            self._card.samples += 1
        self._card.categories = dict(sorted(self._categories.items()))
        self._target.publish(ANNOTATIONS)
        if self._card.refused:
            self._target.publish(REFUSED_NAME)
        else:
            refused.unlink()

    def _samples(self, item: Item) -> Iterator[dict[str, Any] | SampleProblem]:
        """The finished lines of an item, or what is wrong with it."""
        number = 0
        try:
            for number, draft in enumerate(self._adapter.lines(item, self._folder), start=1):
                try:
                    yield self._finish(draft, item, number)
                except SampleProblem as problem:
                    yield problem
            if not number:
                yield SampleProblem(
                    ProblemKind.STRUCTURE, "the item gives no sample. Nothing is to be done.", item.where
                )
        except SampleProblem as problem:
            yield problem
        except _LAYOUT_ERRORS as error:
            words = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
            reason = f"the item is not as the layout of {self._entry.name} says ({words}). Correct or drop it."
            yield SampleProblem(ProblemKind.STRUCTURE, reason, item.where)

    def _finish(self, draft: dict[str, Any], item: Item, number: int) -> dict[str, Any]:
        """A line with id and source, checked like any line of an annotation file, its media in place."""
        name = f"{self._entry.name}-{self._card.items}" + (f"-{number}" if number > 1 else "")
        line = {"id": name, "source": self._entry.name, **draft}
        if self._entry.category is not None:
            line.setdefault("category", str(self._entry.category))
        embedded = dict(item.media)
        if "image" in line:
            line["image"] = _named(line["image"], embedded)
        record = parse_record(_dump(line, item.where), where=item.where, split="train")
        media = list_frames(record.media, partial(resolve_media_folder, self._folder.root), item.where)
        paths = dict.fromkeys(
            path for medium in media for path in ((medium,) if isinstance(medium, str) else medium.files)
        )
        files = {
            path: resolve_media_path(self._folder.root, path, item.where) for path in paths if path not in embedded
        }
        for path, file in files.items():
            if path.startswith("/") or ".." in PurePosixPath(path).parts:  # inside, but not by this name in the output
                raise SampleProblem(
                    ProblemKind.OUTSIDE_FOLDER, f"{shown(path)} is not a plain path below the folder.", item.where
                )
            self._target.place(file, path)
        renamed = {path: self._extract(path, embedded[path]) for path in paths if path in embedded}
        if renamed:
            line["image"] = [renamed.get(path, path) for path in line["image"]]
        self._card.media_files += len(paths)
        self._categories[record.category.value] += 1
        return line

    def _extract(self, name: str, content: bytes) -> str:
        """Write an embedded file; returns its path. 1000 go into one folder."""
        suffix = PurePosixPath(name).suffix.lower()
        number = self._extracted
        self._extracted += 1
        path = f"{_EXTRACTED}/{number // _FILES_A_FOLDER:06d}/{number:09d}{suffix}"
        self._target.write_media(path, content)
        return path

    def _note(self, problem: SampleProblem) -> str:
        self._card.refused += 1
        kind = problem.kind.value
        if kind not in self._card.reasons:
            self._card.reasons[kind] = [0, (problem.where, problem.reason)]
        self._card.reasons[kind][0] += 1
        return json.dumps({"where": problem.where, "kind": kind, "reason": problem.reason}, ensure_ascii=False) + "\n"


def _named(images: Any, embedded: dict[str, bytes]) -> Any:
    """The paths of a line's pictures; bytes get a name and go to `embedded`.

    `[{"bytes": b"..", "path": "x.png"}, "a.jpg"]` gives the names `embedded-0.png` and `a.jpg`.
    """
    names = []
    for index, image in enumerate(images if isinstance(images, list) else [images]):
        content = image.get("bytes") if isinstance(image, dict) else image if isinstance(image, bytes) else None
        if content is None:
            names.append(image.get("path") if isinstance(image, dict) else image)
            continue
        path = image.get("path") if isinstance(image, dict) else None
        name = f"embedded-{index}{PurePosixPath(path or '').suffix or _suffix(content)}"
        embedded[name] = content
        names.append(name)
    return names


def _suffix(content: bytes) -> str:
    """The suffix of a picture by its first bytes; empty if they say nothing."""
    for magic, suffix in ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"GIF8", ".gif"), (b"II*\0", ".tif")):
        if content.startswith(magic):
            return suffix
    return ".webp" if content[8:12] == b"WEBP" else ""


def _dump(line: dict[str, Any], where: str) -> str:
    try:
        return json.dumps(line)
    except (TypeError, ValueError) as error:
        reason = f"the sample cannot be written as JSON ({printable(str(error), MAX_PATH_CHARACTERS)})."
        raise SampleProblem(ProblemKind.STRUCTURE, reason, where) from error
