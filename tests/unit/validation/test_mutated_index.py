"""An index whose file or values were changed: refused with its place, or as a dataset; never good, never a crash."""

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from vl3.config.run import RunConfig
from vl3.data.build import parts as parts_module
from vl3.data.build.index import IndexRow, index_schema, write_index
from vl3.data.build.parts import parts_of_files, parts_of_table
from vl3.errors import DataError
from vl3.validation.index_tables import COLUMN_KINDS
from vl3.validation.suite import validate_index

Rows = list[IndexRow]


def test_parts_are_judged_as_the_whole_is(
    make_rows: Callable[[], Rows],
    make_table: Callable[[Rows], pa.Table],
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = make_rows()
    rows[4].sample_id = rows[99].sample_id
    rows[120].content_sha256 = rows[3].content_sha256
    rows[5].aspect_ratio, rows[90].aspect_ratio = 300.0, 400.0
    rows[7].problem_kind, rows[7].problem = "tags", "no tag"
    rows[70].unknown_keys = "page"
    whole = validate_index(parts_of_table(make_table(rows)), config, tmp_path / "whole").to_dict()
    monkeypatch.setattr(parts_module, "BATCH_ROWS", 50)
    parts = validate_index(parts_of_table(make_table(rows)), config, tmp_path / "parts").to_dict()
    assert parts == whole
    failed = {finding["check"]: [row["where"] for row in finding["rows"]] for finding in whole["critical"]}
    assert failed["sample_id_unique"] == [rows[4].where, rows[99].where]
    assert failed["aspect_ratio"] == [rows[5].where, rows[90].where]


def test_no_changed_byte_passes_as_good(make_rows: Callable[[], Rows], tmp_path: Path) -> None:
    """Every page has a checksum; what is not told by it is told by the footer, or is no part of any value."""
    path, changed = tmp_path / "index.parquet", tmp_path / "changed.parquet"
    write_index(path, make_rows() * 20)
    content = path.read_bytes()
    good = [batch.to_pylist() for _, batch in parts_of_files([path]).read(None)]
    rng = random.Random(0)
    messages = []
    for _ in range(300):
        mutated = bytearray(content)
        for _ in range(rng.choice([1, 1, 4])):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        changed.write_bytes(mutated[: rng.choice([len(mutated), len(mutated), rng.randrange(len(mutated))])])
        try:
            parts = parts_of_files([changed])
            found = [batch.to_pylist() for _, batch in parts.read(None)]
        except DataError as error:
            messages.append(str(error))
        else:
            assert found == good or parts.schema != index_schema()
    assert len(messages) > 200
    assert [message for message in messages if str(changed) not in message] == []


@pytest.mark.parametrize(
    ("column", "value", "check"),
    [
        ("text_tokens", -5, "facts_not_negative"),
        ("offset_bytes", -1, "facts_not_negative"),
        ("num_frames", -4, "facts_not_negative"),
        ("sha256", None, "facts_known"),
        ("text_tokens", None, "facts_known"),
        ("where", None, "facts_known"),
        ("split", None, "split_known"),
        ("aspect_ratio", -2.0, "aspect_ratio"),
    ],
)
def test_a_changed_value_is_refused(
    rows: Rows,
    make_table: Callable[[Rows], pa.Table],
    config: RunConfig,
    tmp_path: Path,
    column: str,
    value: object,
    check: str,
) -> None:
    setattr(rows[0], column, value)
    result = validate_index(parts_of_table(make_table(rows)), config, tmp_path)
    assert check in {finding.check for finding in result.critical}


def test_columns_of_another_type_are_refused(
    rows: Rows, make_table: Callable[[Rows], pa.Table], config: RunConfig, tmp_path: Path
) -> None:
    lists = pa.array([[1]] * len(rows))
    table = pa.table({name: lists if name in COLUMN_KINDS else column for name, column in _columns(make_table(rows))})
    (finding,) = validate_index(parts_of_table(table), config, tmp_path).critical
    assert [(row.where, row.reason) for row in finding.rows] == [
        (column, f"asked={kind}, found=list<item: int64>, fits=no") for column, kind in COLUMN_KINDS.items()
    ]


def _columns(table: pa.Table) -> list[tuple[str, pa.ChunkedArray]]:
    return list(zip(table.column_names, table.columns, strict=True))
