"""Reading what the API server writes."""

from decimal import Decimal
from typing import Any

import pytest

from vl3.launch.kube.objects import parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("500m", "0.5"),
        ("2Gi", 2**31),
        ("1k", 1000),
        ("1.5Ti", 1.5 * 2**40),
        ("3E", 3 * 10**18),
        (8, 8),
        ("1e3", 1000),
    ],
)
def test_quantities_are_read_as_kubernetes_writes_them(text: str | int, value: Any) -> None:
    assert parse_quantity(text) == Decimal(str(value))


@pytest.mark.parametrize("text", ["", "much", "4GiB", "1ki"])
def test_what_is_no_quantity_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"Invalid number|unknown suffix"):
        parse_quantity(text)
