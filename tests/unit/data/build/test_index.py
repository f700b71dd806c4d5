"""The Parquet index: columns, facts of refused lines, lengths under a stage's settings."""

import dataclasses
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.plans import make_rows, write_dataset
from vl3.data.build.index import DatasetIndex, IndexRow, index_schema, read_row, write_index
from vl3.data.sample.problems import ProblemKind
from vl3.errors import DataError

FACTS = (
    "turns_alternate",
    "tags_match",
    "timestamps_ordered",
    "boxes_in_range",
    "path_inside",
    "media_present",
    "media_decodable",
)


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (ProblemKind.JSON, [None] * 7),
        (ProblemKind.STRUCTURE, [None] * 7),
        (ProblemKind.NO_ANSWER, [False, None, None, None, None, None, None]),
        (ProblemKind.TAGS, [True, False, None, None, None, None, None]),
        (ProblemKind.MISSING_FILE, [True] * 5 + [False, None]),
        (ProblemKind.UNDECODABLE, [True] * 6 + [False]),
        (ProblemKind.TOO_LONG, [True] * 7),
    ],
)
def test_a_problem_says_which_facts_hold(kind, facts):
    row = IndexRow(sample_id="a", split="train", where="t:1", shard="shard-000000.tar")
    row.refuse(kind, "why")
    assert [getattr(row, fact) for fact in FACTS] == facts
    assert (row.problem, row.problem_kind, row.shard) == ("why", kind.value, None)


def test_rows_survive_parquet_with_their_types(tmp_path):
    rows = [
        IndexRow(sample_id="a", split="train", where="t:1", text_tokens=7, aspect_ratio=1.5, path_inside=True),
        IndexRow(sample_id="b", split="train", where="t:2", problem="bad", problem_kind="json"),
    ]
    write_index(tmp_path / "index.parquet", rows)
    (tmp_path / "summary.json").write_text("{}")
    index = DatasetIndex.read(tmp_path)
    assert index.table.schema.equals(index_schema())
    assert index.row(0) == dataclasses.asdict(rows[0])
    assert index.column("text_tokens").tolist() == [7, 0]
    assert index.is_usable.tolist() == [True, False]
    assert len(index) == 2


def test_usable_rows_are_those_of_the_split_without_problem(tmp_path):
    index = DatasetIndex.read(write_dataset(tmp_path, make_rows(62)))
    assert index.usable_rows("heldout").tolist() == [0, 20, 40, 60]
    assert not {30, 61} & set(index.usable_rows("train").tolist())


def test_one_row_is_read_alone(tmp_path):
    pq.write_table(pa.table({"sample_id": ["a", "b", "c"]}), tmp_path / "index.parquet", row_group_size=2)
    assert [read_row(tmp_path, number, ["sample_id"])["sample_id"] for number in range(3)] == ["a", "b", "c"]
    with pytest.raises(DataError, match=r"index\.parquet has 3 rows and no row 3"):
        read_row(tmp_path, 3, ["sample_id"])
    (tmp_path / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"index\.parquet cannot be read"):
        read_row(tmp_path, 0, ["sample_id"])


def test_a_broken_index_is_named(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "index.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(DataError, match=r"index\.parquet cannot be read"):
        DatasetIndex.read(tmp_path)


def test_an_unfinished_dataset_does_not_exist(tmp_path):
    write_index(tmp_path / "index.parquet", [])
    with pytest.raises(DataError, match=r"not a complete dataset: summary\.json.*Build it with `vl3 data build`"):
        DatasetIndex.read(tmp_path)


def test_reading_an_index_imports_no_pandas(tmp_path):
    """It costs each worker and each step a second."""
    write_index(tmp_path / "index.parquet", [IndexRow(sample_id="a", split="train", where="t:1", text_tokens=7)])
    (tmp_path / "summary.json").write_text("{}")
    code = (
        "import pathlib, sys; from vl3.data.build.index import DatasetIndex; "
        "from vl3.data.build.shards import ShardReader; "
        f"index = DatasetIndex.read(pathlib.Path({str(tmp_path)!r})); index.usable_rows('train'); "
        "index.column('text_tokens'); ShardReader(index.folder, index); print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
