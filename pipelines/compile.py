"""Compile the workflow: `python -m pipelines.compile FILE`, or `--manifests DIR` for the form that lies in git."""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

_DIGEST_HEX = 10
_LABELS = {"app.kubernetes.io/name": "vl3", "app.kubernetes.io/part-of": "vl3"}
_KUSTOMIZATION = """\
# Written by `python -m pipelines.compile --manifests manifests/pipelines`: do not edit. Applied to a team's namespace.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - pipeline.yaml # the name under which versions are found
  - pipeline-version.yaml # the workflow as compiled; its name is a digest of its content
"""


def compile_train(path: Path) -> None:
    """Write the IR of the training workflow."""
    from kfp.compiler import Compiler

    from pipelines.train import train

    Compiler().compile(train, str(path))


def without_sdk_version(text: str) -> str:
    """The IR without the line that changes with each kfp release, for comparison."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("sdkVersion:"))


def ir_digest(path: Path) -> str:
    """Digest of a compiled workflow's content, whatever its layout as text: run here, submitted or in git."""
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return hashlib.sha256(json.dumps(documents, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def compile_manifests() -> dict[str, str]:
    """Pipeline and PipelineVersion of the training workflow as Kubernetes objects: file name -> text.

    A version's spec is immutable on the cluster, so its name is made of its content.
    """
    from kfp.compiler import Compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    from pipelines.train import train

    with tempfile.TemporaryDirectory() as temporary:
        ir, manifest = Path(temporary) / "train.yaml", Path(temporary) / "manifest.yaml"
        compile_train(ir)
        digest = ir_digest(ir)
        name = f"{train.name}-{digest[:_DIGEST_HEX]}"
        options = KubernetesManifestOptions(pipeline_version_name=name, include_pipeline_manifest=True)
        options.pipeline_version_display_name = name
        Compiler().compile(train, str(manifest), kubernetes_manifest_format=True, kubernetes_manifest_options=options)
        pipeline, version = yaml.safe_load_all(manifest.read_text(encoding="utf-8"))
    pipeline["metadata"]["labels"] = _LABELS
    # A version that git no longer names stays on the cluster: runs refer to it.
    annotations = {"argocd.argoproj.io/sync-options": "Prune=false", "vl3.dev/ir-sha256": digest}
    version["metadata"] |= {"labels": _LABELS, "annotations": annotations}
    return {
        "kustomization.yaml": _KUSTOMIZATION,
        "pipeline.yaml": _text(pipeline),
        "pipeline-version.yaml": _text(version),
    }


def _text(manifest: dict[str, Any]) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, width=120)


def main() -> None:
    """Write what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.compile", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="file for the compiled workflow")
    parser.add_argument("--manifests", type=Path, metavar="DIR", help="folder for Pipeline and PipelineVersion")
    arguments = parser.parse_args()
    if (arguments.file is None) == (arguments.manifests is None):
        parser.error("name FILE or --manifests DIR, and not both")
    if arguments.file is not None:
        compile_train(arguments.file)
        return
    arguments.manifests.mkdir(parents=True, exist_ok=True)
    for name, text in compile_manifests().items():
        (arguments.manifests / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
