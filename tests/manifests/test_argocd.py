"""Argo CD may apply all that the overlays hold, finds every part, and keeps the order."""

from pathlib import Path
from typing import Any

import pytest

from tests.manifests.policies import of_kind
from tests.manifests.schema import schema_problems
from tests.support.manifests import MANIFESTS, kustomize, load, overlay_text

PARTS = (
    *(f"third-party/{name}" for name in ("jobset", "trainer", "kueue", "kuberay")),
    "cluster",
    "namespace",
    "pipelines",
)


@pytest.fixture(scope="module")
def argocd() -> list[dict[str, Any]]:
    """The objects of manifests/argocd."""
    return load(kustomize(MANIFESTS / "argocd"))


def _elements(argocd: list[dict[str, Any]]) -> list[dict[str, str]]:
    (application_set,) = of_kind(argocd, "ApplicationSet")
    _, parts = application_set["spec"]["generators"][0]["matrix"]["generators"]
    return parts["list"]["elements"]


def test_objects_fit_their_schema(argocd: list[dict[str, Any]]) -> None:
    assert [problem for obj in argocd for problem in schema_problems(obj)] == []


@pytest.mark.parametrize("overlay", ["staging", "prod"])
def test_every_part_of_every_overlay_is_generated(overlay: str, argocd: list[dict[str, Any]]) -> None:
    paths = [element["path"] for element in _elements(argocd)]
    assert paths == list(PARTS)
    for path in paths:
        assert (MANIFESTS / "overlays" / overlay / path / "kustomization.yaml").is_file()


def test_waves_go_from_controllers_to_pipelines(argocd: list[dict[str, Any]]) -> None:
    waves = {element["part"]: int(element["wave"]) for element in _elements(argocd)}
    order = ["jobset", "trainer", "cluster", "namespace", "pipelines"]
    assert [waves[part] for part in order] == [0, 1, 2, 3, 4]
    assert waves["kueue"] == 1
    (application_set,) = of_kind(argocd, "ApplicationSet")
    steps = application_set["spec"]["strategy"]["rollingSync"]["steps"]
    assert [step["matchExpressions"][0]["values"] for step in steps] == [[str(wave)] for wave in range(5)]


@pytest.mark.parametrize("part", PARTS)
def test_the_project_allows_what_the_parts_hold(part: str, argocd: list[dict[str, Any]], manifest_copies: Path) -> None:
    (project,) = of_kind(argocd, "AppProject")
    namespaces = {destination["namespace"] for destination in project["spec"]["destinations"]}
    kinds = {(entry["group"], entry["kind"]) for entry in project["spec"]["clusterResourceWhitelist"]}
    refused = {entry["kind"] for entry in project["spec"]["namespaceResourceBlacklist"]}
    assert refused == {"TrainJob", "JobSet", "RayJob"}
    objects = load(overlay_text(f"prod/{part}", manifest_copies))
    assert not of_kind(objects, "Job", *refused)
    for obj in objects:
        group = obj["apiVersion"].rpartition("/")[0]
        if namespace := obj["metadata"].get("namespace"):
            assert namespace in namespaces, (obj["kind"], obj["metadata"]["name"])
        else:
            assert (group, obj["kind"]) in kinds, obj["metadata"]["name"]


def test_deleting_the_set_keeps_the_definitions(argocd: list[dict[str, Any]]) -> None:
    (application_set,) = of_kind(argocd, "ApplicationSet")
    assert application_set["spec"]["syncPolicy"]["preserveResourcesOnDeletion"] is True
