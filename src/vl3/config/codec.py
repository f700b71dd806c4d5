"""Configuration as plain JSON data and back, and its digest."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, TypeVar

import cattrs
from cattrs.errors import ClassValidationError, IterableValidationError, StructureHandlerNotFoundError
from cattrs.v import format_exception

from vl3.config.mixture import Draw, MixtureValue
from vl3.errors import ConfigError

T = TypeVar("T")
_converter = cattrs.Converter(forbid_extra_keys=True)


class _WrongType(ValueError):
    """A value of another type; its text names the value."""


def _strict(kind: type, accepted: tuple[type, ...]) -> Callable[[Any, type], Any]:
    def structure(value: Any, wanted: type) -> Any:
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, accepted):
            raise _WrongType(f"{value!r:.200} is not {'an' if kind is int else 'a'} {kind.__name__}")
        if issubclass(wanted, Enum):  # an enum of texts is a text to cattrs
            return _member(wanted, value)
        try:
            if isinstance(value, str):
                value.encode()
            return kind(value)
        except (OverflowError, UnicodeEncodeError) as error:  # an int of 400 digits, half of a surrogate pair
            raise _WrongType(f"{value!r:.200} cannot be used ({error})") from error

    return structure


def _member(wanted: type[Enum], value: Any) -> Enum:
    try:
        return wanted(value)
    except ValueError as error:
        raise _WrongType(f"{value!r:.200} is not one of {', '.join(str(one.value) for one in wanted)}") from error


# cattrs converts by calling the type, which would take "no" for True and 1.5 for 1.
for _kind, _accepted in ((bool, (bool,)), (int, (int,)), (float, (int, float)), (str, (str,))):
    _converter.register_structure_hook(_kind, _strict(_kind, _accepted))


def _mixture_value(value: Any, _: type) -> Any:
    return _converter.structure(value, Draw if isinstance(value, dict) else float)


_converter.register_structure_hook_func(lambda kind: kind == MixtureValue, _mixture_value)


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as JSON-ready data, enums as their values."""
    return _converter.unstructure(config)


def from_dict(cls: type[T], data: dict[str, Any]) -> T:
    """Build a configuration class from plain data.

    Raises:
        ConfigError: a key is unknown or missing, a value has the wrong type, or the values contradict each other.
    """
    try:
        return _converter.structure(data, cls)
    except (ClassValidationError, IterableValidationError, StructureHandlerNotFoundError) as error:
        config_error = _find_config_error(error)
        if config_error is not None:
            raise config_error from error
        reasons = "; ".join(cattrs.transform_error(error, path=cls.__name__, format_exception=_reason))
        raise ConfigError(f"{cls.__name__} cannot be built: {reasons}. Correct the named fields.") from error


def _reason(error: BaseException, kind: type | None) -> str:
    return str(error) if isinstance(error, _WrongType) else format_exception(error, kind)


def _find_config_error(error: BaseException) -> ConfigError | None:
    if isinstance(error, ConfigError):
        return error
    for inner in getattr(error, "exceptions", ()):
        found = _find_config_error(inner)
        if found is not None:
            return found
    return None


def canonical_json(data: Any) -> str:
    """JSON with sorted keys and no spaces: equal data give equal text.

    canonical_json({"b": 1.0, "a": [2, "ü"]}) is '{"a":[2,"ü"],"b":1.0}', however the dict was built. Numbers keep their
    type, so 1 and 1.0 give different digests; from_dict has turned an int into a float wherever a field is a float.
    """
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(data: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of plain data."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()


def flatten(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Nested configuration as one level, by paths joined with dots.

    {"optimizer": {"beta1": 0.9}, "lora": None, "mixture": {}}
    -> {"optimizer.beta1": 0.9, "lora": None, "mixture": {}}
    """
    return dict(_leaves(parts, ""))


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
