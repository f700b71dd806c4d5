"""YAML of users, plain and small: nothing that grows when it is read, nothing that is lost."""

from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """The data in a text of YAML: no aliases, which make small files large, and no key twice, of which one would go.

    Raises:
        ValueError: it is no such text; the message is one line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:300]) from error


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name); write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"it has {str(twice)[:100]!r} twice")
        return super().construct_mapping(node, deep)
