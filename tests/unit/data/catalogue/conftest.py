"""Imports small folders in the layouts of published datasets."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.support.samples import image_bytes
from tests.support.training import s3_endpoint, s3_root  # noqa: F401  # fixtures
from vl3.data.catalogue.entry import Entry, find_entry
from vl3.data.catalogue.importer import Card, import_dataset
from vl3.system.uris import file_uri

PICTURE = image_bytes(40, 80)
"""80 px wide, 40 px high."""


@pytest.fixture
def imported(tmp_path) -> Callable[..., tuple[list[dict[str, Any]], Card]]:
    """Writes files, imports them, and returns the lines without `id` and `source`, and the card.

    A file is bytes, a text, or data that becomes JSON; a list of dictionaries at `*.parquet` becomes a table.
    """

    def run(entry: str | Entry, files: dict[str, Any], **options: Any) -> tuple[list[dict[str, Any]], Card]:
        root, out = tmp_path / "root", tmp_path / "out"
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".parquet"):
                pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), root / name)
            else:
                data = content if isinstance(content, bytes | str) else json.dumps(content)
                (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        card = import_dataset(find_entry(entry) if isinstance(entry, str) else entry, root, file_uri(out), **options)
        return [{k: v for k, v in line.items() if k not in ("id", "source")} for line in read_lines(out)], card

    return run


def read_lines(out: Path) -> list[dict[str, Any]]:
    with gzip.open(out / "annotations" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_refused(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "refused.jsonl").read_text().splitlines()]


def tar_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def talk(line: dict[str, Any]) -> list[str]:
    """The texts of a conversation."""
    return [turn["value"] for turn in line["conversations"]]
