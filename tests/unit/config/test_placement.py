"""Contradictions of a placement, each with its reason."""

from dataclasses import replace
from typing import Any

import pytest

from vl3.config.fabric import FabricConfig, SchedulingConfig
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe
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


def elastic(nodes: int, min_nodes: int) -> Any:
    """The large recipe on a cluster, its last stage with a range of nodes of 8 processes and 32 rows to share."""
    recipe = get_recipe("vl3_2b")
    video = replace(recipe.placements["video"], nodes=nodes, min_nodes=min_nodes)
    stage = replace(recipe.stages["video"], packs_divisible_by=32)
    return replace(
        recipe,
        launch=replace(recipe.launch, backend="trainjob"),
        placements=recipe.placements | {"video": video},
        stages=recipe.stages | {"video": stage},
    )


def test_a_stage_may_run_with_each_number_of_processes_that_shares_its_rows() -> None:
    config = elastic(4, 1)
    assert config.world_sizes("video") == [32, 16, 8]  # 24 processes could not share 32 rows
    assert config.world_sizes("alignment") == [16]
    assert replace(config, launch=replace(config.launch, backend="local")).world_sizes("video") == [
        config.launch.processes_per_node
    ]


def test_the_fewest_nodes_must_share_the_rows_too() -> None:
    with pytest.raises(ConfigError, match=r"packs_divisible_by=32 is not divisible by the 24 processes of placements"):
        elastic(4, 3)


@pytest.mark.parametrize("field", ["min_nodes", "fabric", "scheduling"])
def test_the_build_refuses_what_only_stages_use(field: str) -> None:
    values = {
        "min_nodes": 1,
        "fabric": FabricConfig(devices={"rdma/hca": 1}),
        "scheduling": SchedulingConfig(node_labels={"a": "b"}),
    }
    build = replace(PLACED, **{field: values[field]})
    with pytest.raises(ConfigError, match=rf"placements\.build sets {field}, which only training stages use"):
        replace(tiny(), placements=tiny().placements | {"build": build})


def test_processes_that_share_no_rows_may_be_any_number() -> None:
    elastic = replace(PLACED, nodes=4, min_nodes=2, processes_per_node=2)
    assert elastic.node_counts(None) == [4, 3, 2]
    assert replace(elastic, min_nodes=None).node_counts(None) == [4]


def test_the_evaluation_has_a_placement_and_no_stage_has_its_name() -> None:
    recipe = get_recipe("tiny")
    placed = replace(recipe, placements={**recipe.placements, "evaluation": recipe.placements["video"]})
    assert placed.placements["evaluation"].nodes == 1
    stages = {**recipe.stages, "evaluation": recipe.stages["video"]}
    with pytest.raises(ConfigError, match=r"a stage named 'evaluation', as the evaluation's placement is"):
        replace(recipe, stages=stages, placements={**recipe.placements, "evaluation": recipe.placements["video"]})
