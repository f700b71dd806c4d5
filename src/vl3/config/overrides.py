"""Typed overrides of a recipe: `data.max_frames=64`."""

import difflib
import json
from collections.abc import Iterable
from typing import Any, TypeVar

from vl3.config.codec import from_dict, to_dict
from vl3.config.placement import RESERVED
from vl3.errors import ConfigError

Config = TypeVar("Config")

_OPEN_GROUPS = [["mixture"], ["devices"], ["hugepages_gib"], ["environment"], ["node_labels"], ["gates"]]
"""Groups that may gain a name, such as a mixture a category; the class that has them checks the name."""
_OPTIONAL = [f"placements.{name}" for name in RESERVED]
"""Fields that a recipe may lack and a run may set."""


def apply_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """Return the configuration with each `path.to.field=value` applied in order.

    Values are JSON (`64`, `1e-4`, `true`, `null`); anything else is a string. For example:

        data.max_frames=64                        the int 64
        stages.video.learning_rates.vision=null   None, which freezes the encoder
        model.vision_base=file:///bases/mine      not JSON, so the string itself
        stages.*.missing=drop                     the same for every stage

    Raises:
        ConfigError: an override has no `=`, names an unknown field (the nearest is named) or has the wrong type.
    """
    data = to_dict(config)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r} has no '='. Write it as path.to.field=value.")
        for each in _each_path(data, path.strip()):
            _assign(data, each, _parse(text.strip()))
    return from_dict(type(config), data)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a ValueError also for an integer of more than 4300 digits
        return text


def _each_path(data: dict[str, Any], path: str) -> list[str]:
    """The paths that a path with `stages.*` stands for: `stages.*.steps` is `stages.a.steps` and `stages.b.steps`."""
    if not path.startswith("stages.*.") or "stages" not in data:
        return [path]
    return [f"stages.{name}.{path.removeprefix('stages.*.')}" for name in data["stages"]]


def _assign(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    node: Any = data
    for parent in parents:
        _require_key(node, parent, path, data)
        node = node[parent]
    if parents[-1:] not in _OPEN_GROUPS and path not in _OPTIONAL:
        _require_key(node, leaf, path, data)
        if isinstance(node[leaf], dict) and not isinstance(value, dict) and value is not None:
            raise ConfigError(f"{path} is a group of fields, not a value. Name one of {', '.join(node[leaf])}.")
    node[leaf] = value


def _require_key(node: Any, key: str, path: str, data: dict[str, Any]) -> None:
    """Raise ConfigError, with the nearest name, unless `key` is a key of `node`.

    A field of the same name in another group is nearer than any similar spelling: `video.steps` gives
    `stages.vision_adaptation.steps`, the first of that name, and `data.max_frame` gives `data.max_frames`.
    """
    if isinstance(node, dict) and key in node:
        return
    names = list(_leaf_paths(data))
    # A misspelt group is likelier than a misspelt field: prefer fields of the right name, the closest path first.
    same_leaf = [name for name in names if name.rsplit(".", 1)[-1] == path.rsplit(".", 1)[-1]]
    nearest = difflib.get_close_matches(path, same_leaf or names, n=1, cutoff=0.0)
    raise ConfigError(f"override names an unknown field {path!r}. The nearest is {nearest[0]!r}.")


def _leaf_paths(node: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaf_paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
