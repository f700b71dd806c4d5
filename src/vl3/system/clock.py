"""The current time in the formats of records."""

from datetime import UTC, datetime
from typing import Any


def now() -> str:
    """The current time, ISO 8601 in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def now_to_the_second() -> str:
    """The current time in Kubernetes' format: `2026-01-31T12:00:00Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_time(value: Any) -> bool:
    """Whether a value is a time as `now` writes it: ISO 8601 with its zone."""
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
