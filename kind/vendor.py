"""Rewrites `manifests/third-party/` from the pinned Go modules: `python -m kind.vendor`."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from kind.commands import KindError, run, say
from kind.programs import module_folder
from kind.settings import JOBSET_IMAGE, KUBERAY_IMAGE, KUEUE_IMAGE, KWOK_IMAGE, ROOT, TRAINER_IMAGE

TARGET = ROOT / "manifests" / "third-party"


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestSource:
    """Stock manifests inside a Go module."""

    name: str
    module: str
    folder: str
    """Folder of the module that is copied, so that kustomize finds the files that it refers to."""
    overlays: tuple[str, ...]
    """kustomizations below `folder` that are rendered, in this order."""
    stock_image: str
    """Name of the controller's image in the rendered files."""
    image: str
    """Name and tag to use instead."""
    prepare: Callable[[Path], None] = lambda folder: None


def without_own_jobset(folder: Path) -> None:
    """Remove JobSet from Trainer's overlay, which would fetch it by URL: we vendor our own."""
    file = folder / "overlays" / "manager" / "kustomization.yaml"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "third-party/jobset" not in line), encoding="utf-8")


def into_own_namespace(folder: Path) -> None:
    """Give KubeRay's operator a namespace of its own; the stock files put it into `default`."""
    file = folder / "default" / "kustomization.yaml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    document |= {"namespace": "kuberay-system", "resources": ["namespace.yaml", *document["resources"]]}
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kuberay-system"}}
    file.with_name("namespace.yaml").write_text(yaml.safe_dump(namespace, sort_keys=False), encoding="utf-8")


SOURCES = (
    ManifestSource(
        name="jobset",
        module="sigs.k8s.io/jobset",
        folder="config",
        overlays=("default",),
        stock_image="us-central1-docker.pkg.dev/k8s-staging-images/jobset/jobset",
        image=JOBSET_IMAGE,
    ),
    ManifestSource(
        name="trainer",
        module="github.com/kubeflow/trainer/v2",
        folder="manifests",
        overlays=("overlays/manager",),
        stock_image="ghcr.io/kubeflow/trainer/trainer-controller-manager",
        image=TRAINER_IMAGE,
        prepare=without_own_jobset,
    ),
    ManifestSource(
        name="kueue",
        module="sigs.k8s.io/kueue",
        folder="config",
        overlays=("default",),
        stock_image="us-central1-docker.pkg.dev/k8s-staging-images/kueue/kueue",
        image=KUEUE_IMAGE,
    ),
    ManifestSource(
        name="kuberay",
        module="github.com/ray-project/kuberay/ray-operator",
        folder="config",
        overlays=("default",),
        stock_image="quay.io/kuberay/operator",
        image=KUBERAY_IMAGE,
        prepare=into_own_namespace,
    ),
    ManifestSource(
        name="kwok",
        module="sigs.k8s.io/kwok",
        folder="kustomize",
        overlays=("kwok", "stage/node/fast", "stage/node/heartbeat-with-lease"),
        stock_image="registry.k8s.io/kwok/kwok",
        image=KWOK_IMAGE,
    ),
)


def rendered(source: ManifestSource) -> str:
    """All objects of a source as one YAML text, with a header that says where they come from."""
    module = module_folder(source.name, source.module)
    with TemporaryDirectory(prefix="vl3-vendor-") as name:
        folder = Path(name) / source.folder
        run(["cp", "-r", "--no-preserve=mode", module / source.folder, folder])
        source.prepare(folder)
        texts = [run(["kubectl", "kustomize", folder / overlay]) for overlay in source.overlays]
    version = module.name.rpartition("@")[2]
    header = (
        f"# {source.module} {version}: {source.folder}/ {', '.join(source.overlays)} as published, rendered by\n"
        "# `python -m kind.vendor`. Do not edit: changes belong into an overlay.\n"
    )
    return header + "---\n".join(text.removeprefix("---\n") for text in texts)


def kustomization(source: ManifestSource) -> str:
    """The kustomization of the rendered file, which only sets the release's image."""
    name, _, tag = source.image.rpartition(":")
    image = {"name": source.stock_image, "newName": name, "newTag": tag}
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{source.name}.yaml"],
        "images": [image],
    }
    return yaml.safe_dump(document, sort_keys=False)


def main() -> int:
    """Rewrite every folder; `git diff` then shows what a new version changes."""
    try:
        for source in SOURCES:
            folder = TARGET / source.name
            text = rendered(source)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / f"{source.name}.yaml").write_text(text, encoding="utf-8")
            (folder / "kustomization.yaml").write_text(kustomization(source), encoding="utf-8")
            say(f"{folder.relative_to(ROOT)}: {len(text) / 1e6:.1f} MB")
    except KindError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
