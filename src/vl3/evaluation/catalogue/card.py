"""What a dataset's card says of its files: those of a configuration and a split, their columns and rows.

The card is README.md; its head names for each configuration and split the files, as the hub and `datasets` read them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from vl3.errors import DataError
from vl3.evaluation.catalogue.entry import Part

CARD = "README.md"
_BATCH_ROWS = 16
"""A row may hold several pictures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFiles:
    """The files of one split of one configuration."""

    folder: Path
    paths: tuple[Path, ...]


def find_files(root: Path, part: Part) -> DataFiles:
    """The data files of a benchmark's part in a published repository.

    Raises:
        DataError: the card names no such configuration or split, or its files are missing.
    """
    patterns = _patterns(root, part)
    paths = sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})
    if not paths:
        raise DataError(
            f"{root}: no file matches {', '.join(patterns)}, where the questions of {part.task} (configuration "
            f"{part.config or 'default'}, split {part.split}) should be. The copy is incomplete: bring these files."
        )
    return DataFiles(folder=root, paths=tuple(paths))


def rows_of(files: DataFiles) -> int:
    """Number of rows."""
    return sum(_rows(path) for path in files.paths)


def columns_of(files: DataFiles) -> set[str]:
    """Columns of the first file.

    Raises:
        DataError: it cannot be read.
    """
    path = files.paths[0]
    if path.suffix == ".parquet":
        return set(_parquet(path).schema_arrow.names)
    rows = _json_rows(path)
    return set(rows[0]) if rows else set()


def values_of(files: DataFiles, column: str) -> list[str]:
    """The values of a text column, file by file."""
    values: list[str] = []
    for path in files.paths:
        if path.suffix == ".parquet":
            values += [str(one) for one in _parquet(path).read(columns=[column]).column(column).to_pylist()]
        else:
            values += [str(row[column]) for row in _json_rows(path)]
    return values


def read_rows(files: DataFiles) -> Iterator[dict[str, Any]]:
    """Every row with all its columns, a few in memory at a time.

    Raises:
        DataError: a file cannot be read.
    """
    for path in files.paths:
        if path.suffix == ".parquet":
            for batch in _parquet(path).iter_batches(batch_size=_BATCH_ROWS):
                yield from batch.to_pylist()
        else:
            yield from _json_rows(path)


def _patterns(root: Path, part: Part) -> list[str]:
    """File patterns of a part: the card's, or the places where a card-less repository has its splits."""
    configs = _configs(root)
    if not configs and part.config is None:
        return [f"data/{part.split}-*", f"data/{part.split}.*", f"{part.split}-*", f"{part.split}.*"]
    wanted = part.config or "default"
    names = [str(config.get("config_name", "default")) for config in configs]
    if wanted not in names and not (part.config is None and len(configs) == 1):
        raise DataError(
            f"{root / CARD}: names the configurations {', '.join(names) or 'none'} and not {wanted!r}, which "
            f"{part.task} reads. It is incomplete or another version: bring the card with the data."
        )
    config = configs[names.index(wanted)] if wanted in names else configs[0]
    files = config.get("data_files")
    if isinstance(files, str):
        files = [{"split": "train", "path": files}]  # as `datasets` calls the split of a file without one
    found: list[str] = []
    for entry in files if isinstance(files, list) else []:
        if isinstance(entry, str):
            entry = {"split": "train", "path": entry}
        if entry.get("split") == part.split:
            path = entry.get("path", "")
            found += path if isinstance(path, list) else [path]
    if not found:
        raise DataError(
            f"{root / CARD}: configuration {wanted!r} has no split {part.split!r}, which {part.task} reads. It is "
            "another version than lmms-eval's; bring the one that the catalogue names."
        )
    return [_inside(pattern, root) for pattern in found]


def _inside(pattern: str, root: Path) -> str:
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise DataError(f"{root / CARD}: names {pattern!r}, which is outside the folder. Do not use this copy.")
    return pattern


def _configs(root: Path) -> list[dict[str, Any]]:
    path = root / CARD
    if not path.is_file():
        return []
    head = path.read_text(encoding="utf-8", errors="replace").split("---")
    try:
        data = yaml.safe_load(head[1]) if len(head) > 2 and not head[0].strip() else {}
    except yaml.YAMLError as error:
        raise DataError(f"{path}: its head is not YAML ({error}). Bring the card again.") from error
    configs = data.get("configs", []) if isinstance(data, dict) else []
    return [one for one in configs if isinstance(one, dict)]


def _rows(path: Path) -> int:
    if path.suffix == ".parquet":
        return int(_parquet(path).metadata.num_rows)
    return len(_json_rows(path))


def _parquet(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({error}). It is damaged or half copied; bring it again."
        ) from error


def _json_rows(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".jsonl" or not text.lstrip().startswith("["):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        rows: list[dict[str, Any]] = json.loads(text)
    except ValueError as error:
        raise DataError(
            f"{path}: not readable JSON ({error}). It is damaged or half copied; bring it again."
        ) from error
    return rows
