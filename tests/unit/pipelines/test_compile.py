"""The workflow as Kubernetes objects for git."""

from pathlib import Path

import yaml

from tests.support.workflows import compile_train
from vl3.pipelines.compile import compile_manifests, ir_digest
from vl3.pipelines.workflows import WORKFLOWS


def test_a_version_is_the_compiled_workflow_and_is_named_by_it(tmp_path: Path) -> None:
    ir = tmp_path / "train.yaml"
    compile_train(ir)
    spec, platform = yaml.safe_load_all(ir.read_text(encoding="utf-8"))
    versions = {one["metadata"]["name"]: one for one in yaml.safe_load_all(compile_manifests()["train-versions.yaml"])}
    version = versions[f"vl3-train-{ir_digest(ir)[:10]}"]
    assert version["spec"]["pipelineSpec"] == spec
    assert version["spec"]["platformSpec"] == platform
    assert version["metadata"]["annotations"]["vl3.dev/ir-sha256"] == ir_digest(ir)
    assert version["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "Prune=false"


def test_each_recipe_has_its_version_with_its_sizes() -> None:
    versions = list(yaml.safe_load_all(compile_manifests()["evaluate-versions.yaml"]))
    executors = [one["spec"]["pipelineSpec"]["deploymentSpec"]["executors"] for one in versions]
    sizes = [one["exec-evaluate"]["container"]["resources"]["resourceMemoryRequest"] for one in executors]
    assert sizes == ["4096Mi", "65536Mi", "196608Mi"]


def test_the_version_belongs_to_the_pipeline() -> None:
    manifests = {name: next(yaml.safe_load_all(text)) for name, text in compile_manifests().items()}
    assert manifests["evaluate-versions.yaml"]["spec"]["pipelineName"] == "vl3-evaluate"
    pipeline, version = manifests["train-pipeline.yaml"], manifests["train-versions.yaml"]
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert {pipeline["apiVersion"], version["apiVersion"]} == {"pipelines.kubeflow.org/v2beta1"}
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == "vl3-train"
    assert manifests["kustomization.yaml"]["resources"] == [
        f"{workflow}-{what}.yaml" for workflow in WORKFLOWS for what in ("pipeline", "versions")
    ]
    assert all("namespace" not in manifest["metadata"] for manifest in (pipeline, version))


def test_the_digest_is_of_the_content_not_of_the_text(tmp_path: Path) -> None:
    for name, text in {"a": "x: 1\ny: [2]\n", "b": "y:\n- 2\nx: 1\n", "c": "x: 1\ny: [3]\n"}.items():
        (tmp_path / name).write_text(text)
    assert ir_digest(tmp_path / "a") == ir_digest(tmp_path / "b") != ir_digest(tmp_path / "c")
