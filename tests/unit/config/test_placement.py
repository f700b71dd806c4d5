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
        (
            {"nodes": 2, "min_nodes": 3},
            r"placement\.min_nodes=3 is more than nodes=2, the most that the stage may take\. Lower min_nodes",
        ),
        ({"gpu": "h200"}, r"placement\.gpu=h200 speaks of GPUs, but gpus_per_node=0\. Leave it out"),
        ({"price_per_gpu_hour": 2.5}, r"placement\.price_per_gpu_hour=2\.5 speaks of GPUs, but gpus_per_node=0"),
        ({"price_per_gpu_hour": -1.0}, r"placement\.price_per_gpu_hour=-1\.0 is negative\. Use 0 or more"),
        ({"gpu": "H 200"}, r"placement\.gpu='H 200' is no name of a kind of GPU\. .*such as h200"),
        ({"currency": "euro"}, r"placement\.currency='euro' is no currency\. Use its three capital letters"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_placement_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PLACED, **changes)


def test_world_size_is_pods_times_processes() -> None:
    assert replace(PLACED, nodes=3, processes_per_node=4).num_processes == 12


def test_node_counts_share_the_packs_evenly_and_come_largest_first() -> None:
    elastic = replace(PLACED, nodes=4, min_nodes=2, processes_per_node=1)

    assert elastic.node_counts(12) == [4, 3, 2]
    assert replace(elastic, processes_per_node=2).node_counts(12) == [3, 2]
    assert replace(elastic, min_nodes=None).node_counts(12) == [4]
