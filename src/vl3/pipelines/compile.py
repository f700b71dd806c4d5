"""Compile a workflow: `python -m vl3.pipelines.compile FILE`, or `--manifests DIR` for the form that is kept in git."""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from vl3.config.parameters import WorkflowParameters
from vl3.pipelines.workflows import DEFAULT_WORKFLOW, WORKFLOWS, Workflow, effective_config, get_workflow

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's loader in C, ten times as fast, where it was built with libyaml: workflows are files of a megabyte."""
_DIGEST_HEX = 10
_LABELS = {"app.kubernetes.io/name": "vl3", "app.kubernetes.io/part-of": "vl3"}
_KUSTOMIZATION = """\
# Written by `make pipeline-manifests`: do not edit. Applied to a team's namespace.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: # for each workflow the name under which its versions are found, and those versions
"""


def compile_workflow(workflow: Workflow, parameters: WorkflowParameters, path: Path) -> None:
    """Write the IR of a workflow for the recipe and overrides of a run.

    Raises:
        ConfigError: the recipe is not one of the workflow's, or an override does not fit.
    """
    from kfp.compiler import Compiler

    Compiler().compile(workflow.make_pipeline(effective_config(workflow, parameters), parameters), str(path))


def ir_digest(path: Path) -> str:
    """Digest of a compiled workflow's content, independent of its layout as text."""
    return _digest(read_documents(path))


def read_documents(path: Path) -> list[Any]:
    """The documents of a compiled workflow: its specification, and the settings of its pods."""
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_LOADER))


def spec_digest(spec: Any) -> str:
    """The same digest of a workflow as a server answers it: {"pipeline_spec": ..., "platform_spec": ...}.

    The server writes the number 4.0 as 4, so both are compared as kfp's own messages.

    Raises:
        ValueError: this is no workflow, or one of a newer kfp.
    """
    from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
    from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

    try:
        pipeline = ParseDict(spec["pipeline_spec"], PipelineSpec())
        platform = ParseDict(spec["platform_spec"], PlatformSpec())
    except (ParseError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("no workflow that this release of kfp can read") from error
    return _digest([MessageToDict(pipeline), MessageToDict(platform)])


def version_name(workflow: Workflow, digest: str) -> str:
    """Name of the PipelineVersion with this content: `vl3-train-0123456789`."""
    return f"{workflow.pipeline_name}-{digest[:_DIGEST_HEX]}"


def git_digest(workflow: Workflow, recipe: str) -> str:
    """Digest of the version that git holds for a recipe."""
    with tempfile.TemporaryDirectory() as temporary:
        ir = Path(temporary) / "ir.yaml"
        _compile_for_git(workflow, recipe, ir)
        return ir_digest(ir)


def compile_manifests() -> dict[str, str]:
    """Every workflow as Kubernetes objects: file name -> text.

    A Pipeline is the common name of its versions; a PipelineVersion is the workflow as compiled for one or more
    recipes. A version's spec is immutable on the cluster, so its name has a digest of its content:

        train-pipeline.yaml   Pipeline vl3-train
        train-versions.yaml   PipelineVersion vl3-train-0123456789, one for all recipes with the same stages and sizes
    """
    files: dict[str, str] = {}
    for workflow in WORKFLOWS.values():
        versions: dict[str, dict[str, Any]] = {}
        for recipe in workflow.recipes:
            pipeline, version = _compile_objects(workflow, recipe)
            versions[version["metadata"]["name"]] = version
        files[f"{workflow.name}-pipeline.yaml"] = _text(pipeline)
        files[f"{workflow.name}-versions.yaml"] = "---\n".join(map(_text, versions.values()))
    resources = "".join(f"  - {name}\n" for name in files)
    return {"kustomization.yaml": _KUSTOMIZATION + resources, **files}


def _compile_objects(workflow: Workflow, recipe: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pipeline and PipelineVersion of a workflow for a recipe."""
    from kfp.compiler import Compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    with tempfile.TemporaryDirectory() as temporary:
        ir, manifest = Path(temporary) / "ir.yaml", Path(temporary) / "manifest.yaml"
        compiled = _compile_for_git(workflow, recipe, ir)
        digest = ir_digest(ir)
        name = version_name(workflow, digest)
        options = KubernetesManifestOptions(pipeline_version_name=name, include_pipeline_manifest=True)
        options.pipeline_version_display_name = name
        Compiler().compile(
            compiled, str(manifest), kubernetes_manifest_format=True, kubernetes_manifest_options=options
        )
        pipeline, version = read_documents(manifest)
    pipeline["metadata"]["labels"] = _LABELS
    # A version that git no longer names stays on the cluster: runs refer to it.
    annotations = {"argocd.argoproj.io/sync-options": "Prune=false", "vl3.dev/ir-sha256": digest}
    version["metadata"] |= {"labels": _LABELS, "annotations": annotations}
    return pipeline, version


def _compile_for_git(workflow: Workflow, recipe: str, path: Path) -> Any:
    """Write the IR that git holds for a recipe, which is without the parameters of any run; returns kfp's pipeline."""
    from kfp.compiler import Compiler

    compiled = workflow.make_pipeline(workflow.recipe(recipe), WorkflowParameters(recipe=recipe))
    Compiler().compile(compiled, str(path))
    return compiled


def _digest(documents: list[Any]) -> str:
    return hashlib.sha256(json.dumps(documents, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _text(manifest: dict[str, Any]) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, width=120)


def main() -> None:
    """Write the file or the manifests that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m vl3.pipelines.compile", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="file for the compiled workflow")
    parser.add_argument("--workflow", default=DEFAULT_WORKFLOW, help=f"one of {', '.join(WORKFLOWS)}")
    parser.add_argument(
        "--recipe", default="", help="recipe whose stages it is compiled for; default: the workflow's own"
    )
    parser.add_argument("--manifests", type=Path, metavar="DIR", help="folder for Pipeline and PipelineVersion")
    arguments = parser.parse_args()
    if (arguments.file is None) == (arguments.manifests is None):
        parser.error("give either FILE or --manifests DIR")
    if arguments.file is not None:
        parameters = WorkflowParameters(recipe=arguments.recipe)
        compile_workflow(get_workflow(arguments.workflow), parameters, arguments.file)
        return
    arguments.manifests.mkdir(parents=True, exist_ok=True)
    for name, text in compile_manifests().items():
        (arguments.manifests / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
