"""One form of tables and of JSON for all commands."""

import json

import pytest

from vl3.cli.output import aligned_rows, print_table

ROWS = [{"name": "a", "age": None}, {"name": "longer", "age": 12}]


def test_columns_stand_under_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(ROWS, as_json=False)
    assert capsys.readouterr().out == "name    age\na\nlonger  12\n"
    assert aligned_rows([{"x": "1"}]) == "x\n1"


def test_json_keeps_the_types(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(ROWS, as_json=True, empty="nothing")
    assert json.loads(capsys.readouterr().out) == ROWS
    print_table([], as_json=True, empty="nothing")
    assert capsys.readouterr().out == "[]\n"
    print_table([], as_json=False, empty="nothing")
    assert capsys.readouterr().out == "nothing\n"
