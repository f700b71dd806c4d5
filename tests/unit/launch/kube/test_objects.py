"""Reading what the API server writes."""

from decimal import Decimal
from typing import Any

import pytest

from vl3.launch.kube.objects import is_unreachable, parse_quantity, unix_time


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


@pytest.mark.parametrize(
    ("grace", "seconds_after", "is_lost"), [(1800, 119, False), (1800, 121, True), (30, 29, False), (30, 31, True)]
)
def test_a_lost_node_is_not_waited_for_as_long_as_a_pod_may_take(grace: int, seconds_after: int, is_lost: bool) -> None:
    deleted = unix_time("2026-11-30T10:00:00Z")
    assert deleted is not None
    due = "2026-11-30T10:30:00Z" if grace == 1800 else "2026-11-30T10:00:30Z"
    lost = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    pod: dict[str, Any] = {
        "metadata": {"deletionTimestamp": due, "deletionGracePeriodSeconds": grace},
        "status": {"conditions": [lost]},
    }
    assert is_unreachable(pod, deleted + seconds_after) is is_lost
    pod["status"] = {}
    assert not is_unreachable(pod, deleted + 10_000), "a node that answers is waited for"
