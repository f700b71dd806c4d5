"""Rules and bounds as YAML files."""

from pathlib import Path
from typing import Any

import yaml

from vl3.errors import ConfigError

_MAX_BYTES = 2**20


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: it cannot be read, or is no mapping.
    """
    try:
        with path.open("rb") as file:
            data = yaml.safe_load(file.read(_MAX_BYTES))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}). Write it as the one that docs/derived-data.md shows."
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} has no names with values. Write it as the one that docs/derived-data.md shows.")
    return data
