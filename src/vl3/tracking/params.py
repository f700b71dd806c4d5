"""A nested configuration as MLflow parameters, within MLflow's limits."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

MAX_PARAMS_PER_BATCH = 100
"""Maximum number of parameters or tags in one request to MLflow."""
MAX_METRICS_PER_BATCH = 1000
"""Maximum number of metric values in one request to MLflow."""
MAX_VALUE_CHARACTERS = 6000
"""Maximum length of a parameter's value in MLflow."""
MAX_KEY_CHARACTERS = 250
"""Maximum length of the name of a parameter, metric or tag in MLflow."""

_FORBIDDEN_IN_KEY = re.compile(r"[^\w.\-/ :]")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as MLflow parameters: `path.to.field` -> text.

    {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": {}} gives {"a.b": "1", "a.c": "[1, 2]", "d": "None", "e": "{}"}.
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[legal_key(f"{prefix}{key}")] = _text(value)
    return flat


def legal_key(key: str) -> str:
    """The name cut to MLflow's limit, with `_` for each character that MLflow refuses: `loss@1` gives `loss_1`."""
    return _FORBIDDEN_IN_KEY.sub("_", key)[:MAX_KEY_CHARACTERS]


def chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most `size`."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, (list, dict)) else str(value)
    if len(text) <= MAX_VALUE_CHARACTERS:
        return text
    note = f" ... ({len(text)} characters; the whole value is in the configuration artifact)"
    return text[: MAX_VALUE_CHARACTERS - len(note)] + note
