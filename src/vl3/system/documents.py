"""Reads JSON documents that may be damaged, incomplete, or written by another program."""

import json
from typing import Any

_MAX_DEPTH = 64


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object whose strings are all valid UTF-8, nested at most _MAX_DEPTH levels deep.

    Raises:
        ValueError: it is anything else. No other error, whatever the bytes are.
    """
    try:
        value = json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"it is a JSON {type(value).__name__} and not an object")
    _check(value)
    return value


def _check(value: Any) -> None:
    """Refuse what would fail later: half of a surrogate pair cannot be printed, and deep nesting breaks recursion."""
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")
        if isinstance(item, str):
            item.encode("utf-8")
        elif isinstance(item, dict):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            waiting += [(part, depth + 1) for part in item]
