"""Rules as sentences."""

from typing import Any

import pytest

from vl3.recipes.catalog import get_recipe
from vl3.validation.check import Check
from vl3.validation.checks import all_checks
from vl3.validation.rules import rule_in_words


def check(expectation: str, **arguments: Any) -> Check:
    return Check(
        name="n", table="samples", expectation=expectation, arguments=arguments, severity="critical", meaning="m"
    )


@pytest.mark.parametrize(
    ("expectation", "arguments", "words"),
    [
        (
            "ExpectColumnValuesToBeInSet",
            {"column": "split", "value_set": ["train", "heldout"]},
            "Every value of `split` is train or heldout.",
        ),
        (
            "ExpectColumnValuesToBeInSet",
            {"column": "fits", "value_set": [True]},
            "Every value of `fits` is true.",
        ),
        ("ExpectColumnValuesToNotBeInSet", {"column": "a", "value_set": ["json"]}, "No value of `a` is json."),
        ("ExpectColumnValuesToBeNull", {"column": "a"}, "`a` is empty in every row."),
        ("ExpectColumnValuesToNotBeNull", {"column": "a"}, "`a` is known in every row."),
        ("ExpectColumnValuesToBeUnique", {"column": "a"}, "No value of `a` occurs twice."),
        (
            "ExpectColumnValuesToBeBetween",
            {"column": "a", "min_value": 0, "max_value": 0.1, "strict_min": True, "strict_max": False},
            "Every value of `a` is above 0 and at most 0.1, or unknown.",
        ),
        ("ExpectTableRowCountToBeBetween", {"min_value": 1}, "The number of rows is at least 1."),
        (
            "ExpectColumnPairValuesToBeEqual",
            {"column_A": "a", "column_B": ["b", True]},
            "Expect column pair values to be equal: column A a, column B b, true.",
        ),
    ],
)
def test_rule_is_a_sentence(expectation: str, arguments: dict[str, Any], words: str) -> None:
    assert rule_in_words(check(expectation, **arguments)) == words


def test_every_rule_of_a_run_has_words_of_its_own() -> None:
    rules = [rule_in_words(one) for one in all_checks(get_recipe("tiny"), bad_severity="critical")]
    assert len(rules) > 40
    assert [rule for rule in rules if "Expect" in rule or not rule.endswith(".")] == []
