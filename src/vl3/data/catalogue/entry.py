"""Entries of the catalogue: which dataset of the paper is which, where it comes from, and how it is read.

A dataset of one's own is an entry too: a YAML file with `name`, `format` and the options of that format.
"""

from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from vl3.config.codec import from_dict
from vl3.config.data import Category
from vl3.data.catalogue.adapter import Adapter
from vl3.errors import ConfigError

GROUP = "vl3.data.adapters"
"""Entry points of a package under this name are formats of their own."""
_ADAPTERS = "vl3.data.catalogue.adapters"
FORMATS = {
    "llava": "conversations:Llava",
    "sharegpt": "conversations:ShareGpt",
    "messages": "conversations:Messages",
    "instructions": "instructions:Instructions",
    "captions": "captions:Captions",
    "parquet": "parquet:Parquet",
    "webdataset": "webdataset:WebDataset",
    "web_documents": "web_documents:WebDocuments",
    "coco_boxes": "coco:CocoBoxes",
    "coco_captions": "coco:CocoCaptions",
    "ocr_boxes": "ocr:OcrBoxes",
    "form_words": "ocr:FormWords",
    "regions": "regions:Regions",
    "grounded_captions": "grounded:GroundedCaptions",
    "referring": "referring:Referring",
    "vcr": "referring:Vcr",
    "vqa": "vqa:Vqa",
    "chart_captions": "charts:ChartCaptions",
    "documents": "documents:Documents",
    "dense_video": "dense_video:DenseVideo",
    "moments": "moments:Moments",
    "narrations": "ego4d:Narrations",
    "livechat": "ego4d:Livechat",
}
"""Each format's adapter: a class of a module of `adapters`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One dataset. The amount of its row in the paper's table is of all datasets of the row together."""

    name: str
    title: str = ""
    """Its name in the paper."""
    rows: tuple[str, ...] = ()
    """Rows of the paper's tables that name it, as `1 scene image`."""
    category: Category | None = None
    """Category of its samples; None: it follows from each sample's structure."""
    licence: str = "not established"
    home: str = ""
    format: str | None = None
    """The adapter; None: there is none, and `note` says why."""
    options: dict[str, Any] = field(default_factory=dict)
    by_stage: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Options that differ in a stage, such as the caption to take."""
    layout: str = ""
    """Files on disk and their content."""
    layout_source: str = ""
    """Where that is documented."""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a category that is none."""
        if self.category is not None and self.category not in tuple(Category):
            raise ConfigError(f"{self.name}: category {self.category!r} is none of {', '.join(Category)}. Correct it.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """All datasets of the paper's tables 1 to 4."""

    rows: dict[str, str]
    """Amount of each row of the tables, in samples, as the paper prints it."""
    datasets: dict[str, Entry]


@cache
def read_catalogue() -> Catalogue:
    """The catalogue that is part of vl3."""
    data = yaml.safe_load(files("vl3.data.catalogue").joinpath("templates/datasets.yaml").read_text(encoding="utf-8"))
    datasets = {name: from_dict(Entry, {"name": name, **values}) for name, values in data["datasets"].items()}
    return Catalogue(rows=data["rows"], datasets=datasets)


def find_entry(name: str) -> Entry:
    """An entry of the catalogue by its name, or the one in a YAML file.

    Raises:
        ConfigError: there is no such entry, or the file is not one.
    """
    if name.endswith((".yaml", ".yml")):
        return _read_entry(Path(name))
    entries = read_catalogue().datasets
    if name not in entries:
        raise ConfigError(
            f"{name!r} is no dataset of the catalogue (`vl3 data catalogue` lists them). For a dataset of your own, "
            "name a YAML file with its format; see docs/own-data.md."
        )
    return entries[name]


def _read_entry(path: Path) -> Entry:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read ({error}). Write a dataset's name, format and options.") from error
    if not isinstance(data, dict) or not isinstance(data.get("format"), str):
        raise ConfigError(f"{path} names no format. Write `format:` with one of {', '.join(sorted(FORMATS))}.")
    return from_dict(Entry, {"name": path.stem, **data})


def make_adapter(entry: Entry, stage: int | None = None) -> Adapter:
    """The adapter of an entry with its options, those of a stage before the others.

    Raises:
        ConfigError: the entry has none, there is no such format, or an option is wrong.
    """
    if entry.format is None:
        raise ConfigError(f"{entry.name} cannot be imported: {entry.note or 'no adapter is written'}")
    options = {**entry.options, **(entry.by_stage.get(stage, {}) if stage else {})}
    return from_dict(_adapter_class(entry.format), options)


def _adapter_class(name: str) -> type[Adapter]:
    if name in FORMATS:
        module, _, found = FORMATS[name].partition(":")
        adapter: type[Adapter] = getattr(import_module(f"{_ADAPTERS}.{module}"), found)
        return adapter
    own = {point.name: point for point in entry_points(group=GROUP)}
    if name not in own:
        known = ", ".join(sorted({*FORMATS, *own}))
        raise ConfigError(f"format {name!r} is unknown. Use one of {known}, or install a package with it.")
    try:
        loaded: type[Adapter] = own[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"format {name!r} ({own[name].value}) cannot be loaded ({error}). Correct it.") from error
    return loaded
