"""What the recipes ask of a cluster is there: queue, priority, runtime, flavour, and quota for each stage."""

import re
from base64 import b64decode
from typing import Any

import pytest

from tests.manifests.policies import names, of_kind, quota_of
from tests.support.manifests import load, overlay_text
from vl3.components import images
from vl3.config.placement import PlacementConfig
from vl3.recipes.catalog import get_recipe, recipe_names

# The tiny recipe is what kind runs; the large ones are placed on clusters with GPUs.
_RUNS_ON = {"kind": ("tiny",), "staging": tuple(recipe_names()), "prod": tuple(recipe_names())}
_RUNS_ON["single-user"] = _RUNS_ON["staging"]
_BYTES = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def _placements(recipe: str) -> list[PlacementConfig]:
    config = get_recipe(recipe)
    return [config.placements[stage] for stage in config.stages]


def _number(quantity: str) -> float:
    match = re.fullmatch(r"([0-9.]+)(m|Mi|Gi|Ti)?", quantity)
    assert match, quantity
    value, unit = float(match[1]), match[2]
    return value / 1000 if unit == "m" else value * _BYTES.get(unit or "", 1)


def test_every_pool_of_a_recipe_has_its_objects(overlay: tuple[str, list[dict[str, Any]]]) -> None:
    _, objects = overlay
    for recipe in recipe_names():
        for placement in _placements(recipe):
            assert placement.queue in names(objects, "LocalQueue"), (recipe, placement.queue)
            assert placement.priority in names(objects, "WorkloadPriorityClass"), (recipe, placement.priority)
            assert placement.pool in names(objects, "ResourceFlavor"), (recipe, placement.pool)
            assert f"vl3-torch-{placement.pool}" in names(objects, "ClusterTrainingRuntime"), (recipe, placement.pool)


def test_every_stage_fits_the_quota(overlay: tuple[str, list[dict[str, Any]]]) -> None:
    name, objects = overlay
    queues = {queue["metadata"]["name"]: queue["spec"]["clusterQueue"] for queue in of_kind(objects, "LocalQueue")}
    for recipe in _RUNS_ON[name]:
        for stage, placement in zip(get_recipe(recipe).stages, _placements(recipe), strict=True):
            asked = {
                "cpu": placement.cpus_per_node,
                "memory": placement.memory_gib * 2**30,
                "nvidia.com/gpu": placement.gpus_per_node,
            }
            for resource, each in asked.items():
                quota = _number(quota_of(objects, queues[placement.queue], resource))
                assert placement.nodes * each <= quota, (name, recipe, stage, resource, placement.nodes * each, quota)


def test_a_runtime_runs_on_its_pool_alone(overlay: tuple[str, list[dict[str, Any]]]) -> None:
    _, objects = overlay
    taints = {f["metadata"]["name"]: f["spec"].get("nodeTaints", []) for f in of_kind(objects, "ResourceFlavor")}
    for runtime in of_kind(objects, "ClusterTrainingRuntime"):
        pool = runtime["metadata"]["name"].removeprefix("vl3-torch-")
        (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
        pod = job["template"]["spec"]["template"]["spec"]
        assert pod["nodeSelector"] == {"vl3.dev/pool": pool}
        tolerated = [(t["key"], t["value"], t["effect"]) for t in pod["tolerations"] if t["operator"] == "Equal"]
        assert tolerated == [(t["key"], t["value"], t["effect"]) for t in taints[pool]]


@pytest.mark.parametrize("name", ["kind", "staging"])
def test_versions_are_those_of_the_components(name: str, manifest_copies: Any) -> None:
    text = overlay_text(name, manifest_copies)
    used = set(re.findall(r"image: (ghcr\.io/vl3/\S+)", text))
    version = images.LAUNCHER.rpartition(":")[2]
    assert used == {f"ghcr.io/vl3/{role}:{version}" for role in ("curator", "data", "launcher", "mlflow", "trainer")}


def test_the_two_secrets_of_kind_are_marked_as_test_values(manifest_copies: Any) -> None:
    objects = load(overlay_text("kind", manifest_copies))
    secrets = {secret["metadata"]["name"]: secret["data"] for secret in of_kind(objects, "Secret")}
    assert set(secrets) == {"vl3-s3", "mlflow-database"}
    for name, key in (("vl3-s3", "AWS_SECRET_ACCESS_KEY"), ("mlflow-database", "PGPASSWORD")):
        assert b64decode(secrets[name][key]) == b"kind-test-only-not-a-secret"
