"""JSON documents that may hold anything: damaged, half written, or written by somebody else."""

import json
from typing import Any

_MAX_DEPTH = 64


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object whose every text can be written again, nested no deeper than any of ours.

    Raises:
        ValueError: it is anything else; the one error, whatever the bytes are.
    """
    try:
        value = json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__} where a JSON object should be")
    _check(value)
    return value


def _check(value: Any) -> None:
    """Refuse what would fail later: half of a surrogate pair cannot be printed, and depth ends a recursion."""
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
