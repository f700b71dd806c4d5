"""Overlays as kustomize renders them, and the schemas of custom resources."""

import shutil
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from manifests.pin_images import REQUIRED, main

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("kind", "staging", "prod", "single-user")
THIRD_PARTY = ("jobset", "trainer", "kueue", "kwok")


class RenderError(Exception):
    """Kustomize refused a folder."""


def kustomize(folder: Path) -> str:
    """The text that `kubectl apply -k` would send.

    Raises:
        RenderError: kustomize's own message.
    """
    program = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([program, "kustomize", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RenderError(done.stderr.strip())
    return done.stdout


def load(text: str) -> list[dict[str, Any]]:
    """The objects of a rendered text."""
    return [obj for obj in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if obj]


@cache
def overlay_text(name: str, copies: Path) -> str:
    """One overlay, rendered from a copy of the manifests in which production's images are pinned.

    The digests are hashes of the images' names: what a release pins is not known before its push.
    """
    folder = copies / "manifests"
    if not folder.exists():
        shutil.copytree(MANIFESTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.rmtree(folder / "overlays" / "prod" / "images")
        pinned = [f"{image}@sha256:{sha256(image.encode()).hexdigest()}" for image in REQUIRED]
        assert main(pinned, folder / "overlays" / "prod" / "images") == 0
    return kustomize(folder / "overlays" / name)


@cache
def third_party(name: str) -> list[dict[str, Any]]:
    """The objects of a vendored controller."""
    return load(kustomize(MANIFESTS / "third-party" / name))


@cache
def custom_schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """(apiVersion, kind) -> openAPIV3Schema of every custom resource whose definition is vendored."""
    schemas = {}
    for name in THIRD_PARTY:
        for definition in third_party(name):
            if definition["kind"] != "CustomResourceDefinition":
                continue
            spec = definition["spec"]
            for version in spec["versions"]:
                key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                schemas[key] = version["schema"]["openAPIV3Schema"]
    return schemas
