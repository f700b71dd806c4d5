"""A check as data, and short constructors for the common ones."""

from dataclasses import dataclass, field
from typing import Any

CRITICAL = "critical"
WARNING = "warning"


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One expectation."""

    name: str
    """Name in findings and Data Docs."""
    table: str
    """`schema`, `lines`, `samples`, `dataset`, `mixture`, `stages`, `heldout` or `drift` (see index_tables)."""
    expectation: str
    """Name of a class in great_expectations.expectations."""
    arguments: dict[str, Any]
    """Its arguments."""
    severity: str
    """`critical` or `warning`."""
    meaning: str
    """What is wrong if it fails, and what to do."""
    reason_columns: tuple[str, ...] = field(default=())
    """Columns, in addition to the checked one, that explain why a row fails."""


def among(name: str, column: str, values: list[Any], severity: str, meaning: str) -> Check:
    """Passes if every value of a column of `samples` is in a set; nulls pass (`facts_known` refuses them)."""
    arguments = {"column": column, "value_set": values}
    return Check(
        name=name,
        table="samples",
        expectation="ExpectColumnValuesToBeInSet",
        arguments=arguments,
        severity=severity,
        meaning=meaning,
    )


def empty(name: str, column: str, severity: str, meaning: str) -> Check:
    """Passes if a column of `samples` is null in every row; a value describes a problem of the row."""
    return Check(
        name=name,
        table="samples",
        expectation="ExpectColumnValuesToBeNull",
        arguments={"column": column},
        severity=severity,
        meaning=meaning,
    )


def between(
    name: str,
    column: str,
    lowest: float | None,
    highest: float | None,
    severity: str,
    meaning: str,
    *,
    table: str = "samples",
    reasons: tuple[str, ...] = (),
    strict_min: bool = False,
    strict_max: bool = False,
) -> Check:
    """Passes if every value of a column is between two limits, either of which may be None.

    Null and NaN pass; `facts_known` refuses them where a row needs the value.
    """
    limits = {"min_value": lowest, "max_value": highest}
    arguments: dict[str, Any] = {key: value for key, value in limits.items() if value is not None}
    arguments |= {"column": column, "strict_min": strict_min, "strict_max": strict_max}
    return Check(
        name=name,
        table=table,
        expectation="ExpectColumnValuesToBeBetween",
        arguments=arguments,
        severity=severity,
        meaning=meaning,
        reason_columns=reasons,
    )
