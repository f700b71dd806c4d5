"""Rules and thresholds as data: a YAML file of names, each with its value and the reason or source of that value.

min_clip_seconds:
  value: 2
  reason: a shorter one shows too little to ask about. Ours, the paper gives none
"""

from pathlib import Path
from typing import Any, TypeVar

from vl3.config.codec import from_dict
from vl3.errors import ConfigError
from vl3.system.strict_yaml import parse_yaml

T = TypeVar("T")
_MAX_BYTES = 2**20


def read_valued(cls: type[T], path: Path) -> T:
    """Build a class from the values of a file.

    Raises:
        ConfigError: the file cannot be read, a value lacks its reason, or a name or value is wrong.
    """
    try:
        with path.open("rb") as file:
            data = parse_yaml(file.read(_MAX_BYTES).decode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}). Name a YAML file of values with reasons.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} has no names with values. Write each name with a value and its reason.")
    return from_dict(cls, {str(name): _value(entry, name, path) for name, entry in data.items()})


def _value(entry: Any, name: object, path: Path) -> Any:
    if not isinstance(entry, dict) or entry.keys() != {"value", "reason"} or not str(entry["reason"]).strip():
        raise ConfigError(
            f"{path}: {name!r:.100} is not a value with a reason, so nobody could tell later where it came from. Write "
            "both, and nothing else."
        )
    return entry["value"]
