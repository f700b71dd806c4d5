"""Held-out samples are read by range from where the dataset is, and each is checked."""

import shutil
from pathlib import Path

import pytest

from vl3.data.build.index import INDEX_NAME
from vl3.data.build.shards import ShardReader
from vl3.errors import DataError, StorageError
from vl3.evaluation.dataset import HeldoutSamples
from vl3.store.artifacts import publish
from vl3.store.reference import Reference


@pytest.fixture(scope="module")
def folder(make_dataset) -> Path:
    return make_dataset({})


@pytest.fixture
def published(folder: Path, tmp_path: Path) -> tuple[Reference, Path]:
    shutil.copytree(folder, tmp_path / "copy")
    return publish(tmp_path / "copy", (tmp_path / "dataset").as_uri(), kind="dataset", created_by={}), folder


def test_samples_are_those_of_the_dataset(published: tuple[Reference, Path], tmp_path: Path) -> None:
    reference, folder = published
    (tmp_path / "indexes").mkdir()
    samples, reader = HeldoutSamples(reference, tmp_path / "indexes"), ShardReader(folder)
    rows = samples.index.usable_rows("heldout").tolist()
    assert len(rows) == 18
    for row in rows:
        assert samples.read(row) == reader.read(row)
    copied = {path.name for path in (tmp_path / "indexes").rglob("*") if path.is_file()}
    assert copied == {"summary.json", INDEX_NAME}, "no shard is downloaded"


def test_a_damaged_sample_is_named(published: tuple[Reference, Path], tmp_path: Path) -> None:
    (tmp_path / "indexes").mkdir()
    samples = HeldoutSamples(published[0], tmp_path / "indexes")
    row = samples.index.usable_rows("heldout").tolist()[3]
    facts = samples.index.row(row)
    shard = tmp_path / "dataset" / facts["shard"]
    data = bytearray(shard.read_bytes())
    data[facts["offset_bytes"] + 600] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"annotations/heldout\.jsonl:\d+: its bytes in .* do not match the digest"):
        samples.read(row)


def test_another_index_is_refused(published: tuple[Reference, Path], tmp_path: Path) -> None:
    (tmp_path / "indexes").mkdir()
    index = tmp_path / "dataset" / INDEX_NAME
    index.write_bytes(index.read_bytes() + b"x")
    with pytest.raises(StorageError, match=INDEX_NAME):
        HeldoutSamples(published[0], tmp_path / "indexes")
