"""The Parquet index: columns, facts of refused lines, lengths under a stage's settings."""

import dataclasses
import subprocess
import sys

import pytest

from tests.support.plans import SETTINGS, make_index
from vl3.data.build.index import DatasetIndex, IndexRow, index_schema, write_index
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


def test_lengths_follow_the_settings():
    index = make_index(10)
    row = index.row(3)
    assert row["category"] == "general_video"
    text = row["text_tokens"]
    plain = dataclasses.replace(SETTINGS, difffp=False)
    assert index.length_tokens(SETTINGS)[3] == text + row["kept_tokens_m2"]
    assert index.length_tokens(plain)[3] == text + row["video_tokens_m2"]
    assert index.visual_tokens(SETTINGS)[3] == row["video_tokens_m2"]
    image = index.row(1)
    assert index.length_tokens(SETTINGS)[1] == image["text_tokens"] + image["image_tokens_m1"]


def test_usable_rows_are_those_of_the_split_without_problem():
    index = make_index(62)
    assert index.usable_rows("heldout").tolist() == [0, 20, 40, 60]
    assert not {30, 61} & set(index.usable_rows("train").tolist())


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
        "import pathlib, sys; from vl3.data.build.index import DatasetIndex; from vl3.data.build.shards import ShardReader; "
        f"index = DatasetIndex.read(pathlib.Path({str(tmp_path)!r})); index.usable_rows('train'); "
        "index.column('text_tokens'); ShardReader(index.folder, index); print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
