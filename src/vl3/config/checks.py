"""Checks that the configuration classes share: each field declares its values, and `check_fields` enforces them.

steps: Annotated[int, Range(at_least=1, at_most=10**9)]     0, NaN and 10**30 are refused when the class is built
zero_stage: Annotated[int, OneOf((0, 1, 2, 3))]             so is 4
"""

import math
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from vl3.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """The values that a number may have. NaN and the infinities are outside every range."""

    at_least: float | None = None
    """Lowest value, itself included; one of at_least and above is set."""
    above: float | None = None
    """Lower bound, itself excluded."""
    at_most: float | None = None
    """Highest value, itself included; one of at_most and below is set."""
    below: float | None = None
    """Upper bound, itself excluded."""

    def has(self, value: float) -> bool:
        """Whether the value is in the range."""
        return (
            (isinstance(value, int) or math.isfinite(value))  # an int is finite, and may be too large for a float
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def problem(self, value: float) -> str:
        """What is wrong with a value outside the range, in the shortest words, and what to do."""
        lowest = self.above if self.at_least is None else self.at_least
        if value <= 0 and (self.above == 0 or (lowest is not None and lowest > 0)):
            return "must be greater than 0. Set a positive value."
        if (self.at_least, self.at_most) == (0, 1):
            return "is not a fraction. Set a value from 0 to 1."
        if value < 0 and self.at_least == 0 and self.below is None:
            return "is negative. Use 0 or more."
        return f"must be {self}. Set such a value."

    def __str__(self) -> str:
        low = f"greater than {_plain(self.above)}" if self.at_least is None else f"at least {_plain(self.at_least)}"
        high = f"below {_plain(self.below)}" if self.at_most is None else f"at most {_plain(self.at_most)}"
        return f"{low} and {high}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The only values that a field may have."""

    values: tuple[object, ...]
    """All of them."""
    reason: str = ""
    """Why there is no other, where that is not plain; a clause for the message."""


Count = Annotated[int, Range(at_least=1, at_most=10**9)]
"""A number of steps, tokens, samples or the like."""
Workers = Annotated[int, Range(at_least=1, at_most=4096)]
"""A number of processes or threads of one machine."""
Seconds = Annotated[float, Range(above=0, at_most=1e9)]
"""A length of time, up to 31 years."""
Amount = Annotated[float, Range(above=0, at_most=1e6)]
"""Cores, or GiB of memory."""
Weight = Annotated[float, Range(above=0, at_most=1e12)]
"""A relative weight; sums of them stay finite."""
LearningRate = Annotated[float, Range(above=0, at_most=1e30)]
"""A learning rate; the bound only keeps products finite, because a stage that diverges says so itself."""
Threshold = Annotated[float, Range(at_least=-1e30, at_most=1e30)]
"""What a score is compared with; scores may be negative."""
Fraction = Annotated[float, Range(at_least=0, at_most=1)]
"""A share, which may be the whole."""
PartialFraction = Annotated[float, Range(at_least=0, below=1)]
"""A share that is never the whole."""


def check_fields(config: Any, owner: str) -> None:
    """Check each field of a configuration object against what it declares.

    Args:
        config: an object of a configuration class, for `__post_init__`.
        owner: what messages call it, such as `optimizer`; empty for the whole configuration.

    Raises:
        ConfigError: a number is outside its range, NaN or infinite, or a value is not one of those listed.
    """
    for name, rule in declared_rules(type(config)).items():
        value = getattr(config, name)
        if isinstance(rule, OneOf):
            require_choice(owner, name, value, rule.values, rule.reason)
        elif isinstance(value, Mapping):
            for key, number in value.items():
                if isinstance(number, int | float):  # anything else is a class of its own, which has checked itself
                    require_in_range(f"{owner}.{name}.{key}", number, rule)
        elif value is not None:
            require_in_range(f"{owner}.{name}" if owner else name, value, rule)


def require_in_range(name: str, value: float, allowed: Range) -> None:
    """Raise ConfigError unless a number is in a range; `name` is what the message calls it."""
    if not allowed.has(value):
        raise ConfigError(f"{name}={_shown(value)} {allowed.problem(value)}")


def _shown(value: float) -> str:
    """A number for a message; Python refuses to print integers of thousands of digits."""
    is_huge = isinstance(value, int) and value.bit_length() > 256
    return f"({value.bit_length()} bits)" if is_huge and isinstance(value, int) else str(value)


def _plain(bound: float | None) -> str:
    """A bound as a person writes it: 1,000,000 and 0.5, not 1e+06."""
    assert bound is not None
    return f"{int(bound):,}" if bound == int(bound) and bound < 1e15 else f"{bound:g}"


def declared_rules(cls: type) -> dict[str, Range | OneOf]:
    """What each field declares about its values: those of the field itself, or those of a dictionary."""
    hints = get_type_hints(cls, include_extras=True)
    found = {name: next(_rules_in(hint), None) for name, hint in hints.items()}
    return {name: rule for name, rule in found.items() if rule is not None}


def _rules_in(hint: Any) -> Iterator[Range | OneOf]:
    """The rules in a type, through `| None` and the values of a dictionary."""
    if get_origin(hint) is Annotated:
        yield from (extra for extra in get_args(hint)[1:] if isinstance(extra, Range | OneOf))
    elif get_origin(hint) in (Union, types.UnionType, dict):
        for part in get_args(hint):
            yield from _rules_in(part)


def require_choice(owner: str, name: str, value: object, choices: tuple[object, ...], reason: str = "") -> None:
    """Raise ConfigError unless value is one of choices; `reason` says why there is no other."""
    if value not in choices:
        shown = _shown(value) if isinstance(value, int) else f"{value!r:.200}"
        problem = f"cannot be: {reason}. Set" if reason else "is unknown. Choose one of"
        raise ConfigError(f"{owner}.{name}={shown} {problem} {', '.join(map(str, choices))}.")


_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


def require_name(field: str, value: str) -> None:
    """Raise ConfigError unless MLflow, its search filters, URIs, files and labels can all hold the name.

    MLflow refuses `/` and `:` in a model's name and cannot search for one with a quotation mark; the model's URI
    `models:/NAME@ALIAS` cannot hold `@`, a space or `#`.
    """
    if not _NAME.fullmatch(value):
        raise ConfigError(
            f"{field}={value!r:.200} cannot name a model or an experiment of MLflow. Use 1 to 100 letters, digits, "
            "'.', '_' and '-', with a letter or digit at both ends."
        )
