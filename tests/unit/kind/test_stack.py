"""What is put on the kind cluster, and when it counts as ready."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kind import stack, store
from kind.commands import KindError
from kind.settings import HERE, JOBSET_IMAGE, KUBERAY_IMAGE, KUEUE_IMAGE, KWOK_IMAGE, ROOT, TRAINER_IMAGE, Settings
from kind.stack import STACK, split_definitions, unready
from kind.store import WORTH_BYTES, NodeImage, full_name, layers_to_leave_out, read_image
from kind.vendor import SOURCES, kustomization
from tests.support.manifests import kustomize, load


def test_the_stack_is_the_controllers() -> None:
    deployments = [item["metadata"]["name"] for item in load(kustomize(STACK)) if item["kind"] == "Deployment"]
    assert sorted(deployments) == [
        "jobset-controller-manager",
        "kubeflow-trainer-controller-manager",
        "kuberay-operator",
        "kueue-controller-manager",
        "kwok-controller",
    ]


def test_definitions_are_applied_apart() -> None:
    definition = "apiVersion: v1\nkind: CustomResourceDefinition\nname: b"
    definitions, others = split_definitions(f"# header\nkind: Namespace\nname: a\n---\n{definition}\n---\nkind: C\n")
    assert definitions == definition
    assert others == "# header\nkind: Namespace\nname: a\n---\nkind: C\n"


@pytest.mark.parametrize(("away", "passes"), [("failed calling webhook", True), ("field is immutable", False)])
def test_what_a_webhook_that_is_away_refuses_is_applied_again(
    away: str, passes: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers: Iterator[str | KindError] = iter(["kind: Namespace\n", KindError(f"kubectl: {away}"), "applied"])
    asked: list[str] = []

    def answer(words: list[str], **_: Any) -> str:
        asked.append(words[3])
        one = next(answers)
        if isinstance(one, KindError):
            raise one
        return one

    monkeypatch.setattr(stack, "run", answer)
    monkeypatch.setattr("time.sleep", lambda _: None)
    cluster = stack.Cluster(Path("kubectl"), Settings(name="vl3", cache=tmp_path, state=tmp_path, pull=False))
    if passes:
        cluster.apply(tmp_path)
        assert asked == ["kustomize", "apply", "apply"]
    else:
        with pytest.raises(KindError, match="immutable"):
            cluster.apply(tmp_path)
        assert asked == ["kustomize", "apply"]


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, True),
        ({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, False),
        ({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1}, False),
        ({}, False),
    ],
    ids=["ready", "not seen yet", "old pod still there", "new"],
)
def test_a_deployment_is_ready_when_its_newest_pods_are(status: dict[str, Any], ready: bool) -> None:
    item = {"metadata": {"namespace": "a", "name": "b", "generation": 2}, "spec": {"replicas": 1}, "status": status}
    assert unready({"items": [item]}) == ([] if ready else ["a/b"])


def test_only_large_layers_that_the_node_has_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = [{"RootFS": {"Layers": ["a", "b", "new"]}}, {"RootFS": {"Layers": ["a", "other"]}}]
    monkeypatch.setattr(store, "run", lambda *_: json.dumps(facts))
    line = {"name": "docker.io/vl3/x:1", "id": "sha256:1", "layers": [{"digest": "a", "size": 1}]}
    line["layers"].append({"digest": "b", "size": WORTH_BYTES})
    image = read_image(json.dumps(line))
    assert image == NodeImage("docker.io/vl3/x:1", "sha256:1")
    assert layers_to_leave_out(["trainer", "mlflow"], [image]) == {"trainer": {"a": 1, "b": WORTH_BYTES}}


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("vl3/postgres:kind", "docker.io/vl3/postgres:kind"),
        ("ghcr.io/vl3/trainer:0.1.0", "ghcr.io/vl3/trainer:0.1.0"),
        ("localhost:5000/a:b", "localhost:5000/a:b"),
        ("debian:bookworm", "docker.io/library/debian:bookworm"),
    ],
)
def test_full_name_of_an_image(image: str, full: str) -> None:
    assert full_name(image) == full


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_vendored_folder_pins_the_release(source: Any) -> None:
    folder = ROOT / "manifests" / "third-party" / source.name
    assert (folder / "kustomization.yaml").read_text() == kustomization(source)
    header = (folder / f"{source.name}.yaml").read_text().split("\n", 1)[0]
    assert source.image.rpartition(":")[2] in header
    assert source.image in (JOBSET_IMAGE, TRAINER_IMAGE, KUEUE_IMAGE, KUBERAY_IMAGE, KWOK_IMAGE)


def test_every_stage_is_applied() -> None:
    folder = HERE / "stages"
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == sorted(path.name for path in folder.glob("pod-*.yaml"))
