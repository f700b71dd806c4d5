"""Contradictions of a placement, each with its reason."""

from dataclasses import replace
from typing import Any

import pytest

from vl3.errors import ConfigError
from vl3.recipes.tiny import tiny

PLACED = tiny().placements["video"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, r"placement\.nodes=0 must be greater than 0"),
        ({"gpus_per_node": -1}, r"placement\.gpus_per_node=-1 is negative\. Use 0 or more"),
        ({"max_retries": -1}, r"placement\.max_retries=-1 is negative"),
        ({"gpus_per_node": 8}, r"gpus_per_node=8 must equal processes_per_node=2 or GPUs would be idle or shared"),
        ({"shm_gib": 4.0}, r"shm_gib=4 counts as memory and leaves nothing of memory_gib=4\. Lower shm_gib"),
        ({"queue": "Team_A"}, r"placement\.queue='Team_A' is not a valid Kubernetes name\. Use up to 63 characters"),
        ({"pool": "a/../b"}, r"placement\.pool='a/\.\./b' is not a valid Kubernetes name"),
        ({"priority": "x" * 64}, r"placement\.priority='x{64}' is not a valid Kubernetes name"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_placement_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PLACED, **changes)


def test_world_size_is_pods_times_processes() -> None:
    assert replace(PLACED, nodes=3, processes_per_node=4).num_processes == 12
