"""What a check asks for, as a sentence."""

import re
from collections.abc import Callable
from typing import Any

from vl3.validation.check import Check


def rule_in_words(check: Check) -> str:
    """The rule of a check: ``Every value of `aspect_ratio` is at least 1 and at most 200, or unknown.``"""
    known = _RULES.get(check.expectation)
    return known(check.arguments) if known else _other(check)


def _in_set(arguments: dict[str, Any]) -> str:
    return f"Every value of {_column(arguments)} is {_either(arguments['value_set'])}."


def _not_in_set(arguments: dict[str, Any]) -> str:
    return f"No value of {_column(arguments)} is {_either(arguments['value_set'])}."


def _null(arguments: dict[str, Any]) -> str:
    return f"{_column(arguments)} is empty in every row."


def _not_null(arguments: dict[str, Any]) -> str:
    return f"{_column(arguments)} is known in every row."


def _unique(arguments: dict[str, Any]) -> str:
    return f"No value of {_column(arguments)} occurs twice."


def _between(arguments: dict[str, Any]) -> str:
    return f"Every value of {_column(arguments)} is {_limits(arguments)}, or unknown."


def _row_count(arguments: dict[str, Any]) -> str:
    return f"The number of rows is {_limits(arguments)}."


_RULES: dict[str, Callable[[dict[str, Any]], str]] = {
    "ExpectColumnValuesToBeInSet": _in_set,
    "ExpectColumnValuesToNotBeInSet": _not_in_set,
    "ExpectColumnValuesToBeNull": _null,
    "ExpectColumnValuesToNotBeNull": _not_null,
    "ExpectColumnValuesToBeUnique": _unique,
    "ExpectColumnValuesToBeBetween": _between,
    "ExpectTableRowCountToBeBetween": _row_count,
}


def _other(check: Check) -> str:
    """Great Expectations' own name of the rule, as words, with its arguments."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", check.expectation).lower()
    given = ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in check.arguments.items())
    return f"{words.capitalize()}: {given}."


def _column(arguments: dict[str, Any]) -> str:
    return f"`{arguments['column']}`"


def _limits(arguments: dict[str, Any]) -> str:
    """`at least 1 and below 10` for min_value 1, max_value 10 and strict_max."""
    parts = []
    if arguments.get("min_value") is not None:
        parts.append(f"{'above' if arguments.get('strict_min') else 'at least'} {_value(arguments['min_value'])}")
    if arguments.get("max_value") is not None:
        parts.append(f"{'below' if arguments.get('strict_max') else 'at most'} {_value(arguments['max_value'])}")
    return " and ".join(parts) or "anything"


def _either(values: list[Any]) -> str:
    return " or ".join(map(_value, values))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
