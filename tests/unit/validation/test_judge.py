"""A table judged part by part says what Great Expectations says of it."""

import math
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
import pytest

from vl3.validation.check import CRITICAL, WARNING, Check, among, between, empty
from vl3.validation.judge import Judge, exception_message

_CHECKS = [
    among("split", "split", ["train", "heldout"], CRITICAL, "the split is unknown"),
    empty("note", "note", WARNING, "there is a note"),
    between("length", "length", 1, 10, CRITICAL, "the length is out of bounds", reasons=("turns",)),
    between("turns", "turns", 1, None, WARNING, "there is no turn", strict_min=True),
    Check(
        name="not_broken",
        table="samples",
        expectation="ExpectColumnValuesToNotBeInSet",
        arguments={"column": "kind", "value_set": ["broken"]},
        severity=CRITICAL,
        meaning="it is broken",
    ),
]


def _frame(first: int, **columns: list[Any]) -> pd.DataFrame:
    """Five rows in which nothing is wrong but what `columns` says; nulls are in every column that may have some."""
    plain: dict[str, list[Any]] = {
        "where": [f"a.jsonl:{first + row}" for row in range(5)],
        "split": ["train", "heldout", "train", None, "train"],
        "note": [None] * 5,
        "length": [1.0, 10.0, math.nan, math.nan, 5.0],
        "turns": [2, 2, 4, 2, 2],
        "kind": [None, None, "late", None, None],
    }
    return pd.DataFrame({**plain, **columns})


_CLEAN = _frame(0)
_EMPTY = _CLEAN.iloc[:0]
_NULL = _frame(0, split=[None] * 5, length=[math.nan] * 5)
_BAD = _frame(5, note=["a", None, "b", None, None], length=[0.0, 1.0, 11.0, math.nan, math.inf], kind=["broken"] * 5)


def _results(frames: list[pd.DataFrame]) -> dict[str, dict[str, Any]]:
    judge = Judge(_CHECKS)
    for frame in frames:
        judge.add("samples", frame)
    return {check.name: outcome for check, outcome, _ in judge.results()}


@pytest.mark.parametrize("frame", [_CLEAN, _EMPTY, _NULL, _BAD], ids=["clean", "empty", "null", "bad"])
def test_judge_counts_what_great_expectations_counts(frame: pd.DataFrame) -> None:
    results = _results([frame])
    source = gx.get_context(mode="ephemeral").data_sources.add_pandas("plain")
    batch = (
        source.add_dataframe_asset("all").add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    )
    form = {"result_format": "COMPLETE", "unexpected_index_column_names": ["where", "turns"]}
    for check in _CHECKS:
        said = batch.validate(getattr(gxe, check.expectation)(**check.arguments), result_format=form).to_json_dict()
        own, details = results[check.name], said["result"]
        assert own["success"] == said["success"], check.name
        for name in ("element_count", "unexpected_count", "missing_count"):
            assert own["result"][name] == (details.get(name) or 0), (check.name, name)
        assert own["result"]["unexpected_index_list"] == (details.get("unexpected_index_list") or []), check.name


def test_judge_names_failing_rows_with_their_reasons_in_the_order_of_the_parts() -> None:
    results = _results([_CLEAN, _BAD, _EMPTY, _frame(10, length=[99.0, 1.0, 1.0, 1.0, 1.0])])
    assert results["length"]["result"]["unexpected_index_list"] == [
        {"where": "a.jsonl:5", "turns": 2, "length": 0.0},
        {"where": "a.jsonl:7", "turns": 4, "length": 11.0},
        {"where": "a.jsonl:9", "turns": 2, "length": math.inf},
        {"where": "a.jsonl:10", "turns": 2, "length": 99.0},
    ]
    assert results["length"]["result"]["unexpected_count"] == 4
    assert results["length"]["result"]["element_count"] == 15
    assert not results["length"]["success"]
    assert results["split"]["success"]


def test_judge_tells_of_a_check_that_cannot_be_run_in_one_part_only() -> None:
    judge = Judge([_CHECKS[2]])
    judge.add("samples", _CLEAN)
    judge.add("samples", _frame(5, length=["a", "b", "c", "d", "e"]))
    judge.add("samples", _CLEAN)
    ((_, outcome, rows),) = judge.results()
    assert not outcome["success"]
    assert rows == 15
    assert "of the same type" in exception_message(outcome["exception_info"])


def test_judge_writes_the_same_whatever_the_parts(tmp_path: Path) -> None:
    """But for their number."""
    texts = []
    for name, frames in (("one", [pd.concat([_CLEAN, _BAD])]), ("two", [_CLEAN, _BAD])):
        judge = Judge(_CHECKS)
        for frame in frames:
            judge.add("samples", frame)
        judge.write(tmp_path / name)
        texts.append((tmp_path / name / "samples.json").read_text().replace('"parts": 2', '"parts": 1'))
    assert texts[0] == texts[1]
