"""An index in parts: every row once and in order, and damage that is told with its place."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.plans import make_rows, write_dataset
from vl3.config.mixture import ONLY_DATASET
from vl3.data.build import parts as parts_module
from vl3.data.build.index import IndexRow, write_index
from vl3.data.build.parts import DATASET, parts_of_dataset, parts_of_datasets, parts_of_files, parts_of_table
from vl3.errors import DataError


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "BATCH_ROWS", 4)


def _file(path: Path, first: int, count: int) -> Path:
    write_index(
        path,
        [
            IndexRow(sample_id=f"s{number}", split="train", where=f"t:{number}")
            for number in range(first, first + count)
        ],
    )
    return path


@pytest.mark.usefixtures("small_batches")
def test_every_row_is_read_once_and_in_order(tmp_path: Path) -> None:
    files = [_file(tmp_path / "a.parquet", 0, 10), _file(tmp_path / "b.parquet", 10, 3)]
    parts = parts_of_files(files)
    assert parts.num_rows == 13
    for _ in range(2):
        batches = list(parts.read(["sample_id"]))
        assert [name for batch in batches for name in batch[1]["sample_id"].to_pylist()] == [f"s{n}" for n in range(13)]
        assert max(batch.num_rows for _, batch in batches) <= 4
    assert batches[0][0] == f"{files[0]}: rows 0 to 3"
    assert batches[-1][0] == f"{files[1]}: rows 0 to 2"


@pytest.mark.usefixtures("small_batches")
def test_a_table_is_read_the_same_way() -> None:
    parts = parts_of_table(pa.table({"a": list(range(9)), "b": ["x"] * 9}))
    assert [(name, batch.to_pydict()) for name, batch in parts.read(["a"])] == [
        ("rows 0 to 3", {"a": [0, 1, 2, 3]}),
        ("rows 4 to 7", {"a": [4, 5, 6, 7]}),
        ("rows 8 to 8", {"a": [8]}),
    ]


def test_a_cut_file_is_refused_by_name(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.parquet", 0, 100)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.parquet cannot be read .*Build the dataset again"):
        parts_of_files([path])


def test_a_changed_page_is_refused_by_name(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.parquet", 0, 5000)
    content = bytearray(path.read_bytes())
    content[len(content) // 5] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet, from row 0 on, cannot be read"):
        list(parts_of_files([path]).read(None))


def test_a_part_with_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    first = _file(tmp_path / "a.parquet", 0, 2)
    other = tmp_path / "b.parquet"
    pq.write_table(pq.read_table(first).drop_columns(["sha256"]), other)
    with pytest.raises(DataError, match=r"b\.parquet has other columns than .*a\.parquet"):
        parts_of_files([first, other])


def test_text_that_is_no_utf8_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"where": text}), path)
    with pytest.raises(DataError, match=r"a\.parquet, from row 0 on, cannot be read .*UTF8"):
        list(parts_of_files([path]).read(None))


def test_a_folder_without_a_summary_is_no_dataset(tmp_path: Path) -> None:
    _file(tmp_path / "index.parquet", 0, 2)
    with pytest.raises(DataError, match="is not a complete dataset"):
        parts_of_dataset(tmp_path)


def test_datasets_are_read_as_one_with_their_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dataset(tmp_path / name, make_rows(3))
    parts = parts_of_datasets({"first": tmp_path / "one", "second": tmp_path / "two"})
    assert (parts.num_rows, parts.schema.names[-1]) == (6, DATASET)
    for columns in (None, ["sample_id", "where"]):
        rows = [row for _, batch in parts.read(columns) for row in batch.to_pylist()]
        assert [(row["sample_id"], row["where"], row[DATASET]) for row in rows] == [
            (f"{name}/s{number}", f"{name}/t:{number}", name) for name in ("first", "second") for number in range(3)
        ]


def test_a_plain_folder_is_read_as_it_is(tmp_path: Path) -> None:
    write_dataset(tmp_path, make_rows(3))
    parts = parts_of_datasets({ONLY_DATASET: tmp_path})
    assert DATASET not in parts.schema.names
    assert [batch.to_pylist()[0]["where"] for _, batch in parts.read(["where"])] == ["t:0"]
