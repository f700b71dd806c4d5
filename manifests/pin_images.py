"""Write the images of production, by digest, from the names that a registry gave them after the push.

    docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' \
        $(python manifests/pin_images.py --images) | python manifests/pin_images.py

`--images` prints what must have been pushed (ours) or pulled (the controllers). Without it, one `name@sha256:digest` a
line is read and manifests/overlays/prod/images/kustomization.yaml written. Without that file the production overlay
does not render, so nothing can run there that was not pushed and pinned.
"""

import re
import sys
from pathlib import Path

import yaml

MANIFESTS = Path(__file__).parent
PRODUCTION = MANIFESTS / "overlays" / "prod" / "images"
OURS = ("ghcr.io/vl3/curator", "ghcr.io/vl3/data", "ghcr.io/vl3/launcher", "ghcr.io/vl3/mlflow", "ghcr.io/vl3/trainer")
CONTROLLERS = (
    "ghcr.io/kubeflow/trainer/trainer-controller-manager",
    "quay.io/kuberay/operator",
    "registry.k8s.io/jobset/jobset",
    "registry.k8s.io/kueue/kueue",
)
REQUIRED = tuple(sorted(OURS + CONTROLLERS))
"""Images that the production overlay runs; a release pins all of them."""

_REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9._/:-]*)@(?P<digest>sha256:[0-9a-f]{64})")


class PinError(Exception):
    """The digests given do not make a release."""


def read_references(lines: list[str]) -> dict[str, str]:
    """Image name -> digest.

    Raises:
        PinError: a line is no reference by digest, an image has two digests, or a required one is missing.
    """
    digests: dict[str, str] = {}
    for line in filter(None, (line.strip() for line in lines)):
        match = _REFERENCE.fullmatch(line)
        if not match:
            raise PinError(
                f"{line!r} is no image by digest. Expected name@sha256:<64 hex digits>, as the registry answers to a "
                "push (docker image inspect --format '{{index .RepoDigests 0}}' IMAGE)."
            )
        name, digest = match["name"], match["digest"]
        if digests.setdefault(name, digest) != digest:
            raise PinError(f"{name} has two digests: {digests[name]} and {digest}. Pin the images of one release.")
    if missing := sorted(set(REQUIRED) - set(digests)):
        raise PinError(f"No digest of {', '.join(missing)}. Production runs all of {', '.join(REQUIRED)}: push them.")
    return {name: digests[name] for name in REQUIRED}


def tagged_images() -> list[str]:
    """The images that production runs, with the versions that the other overlays name."""
    files = [MANIFESTS / "components" / "release-images", *sorted((MANIFESTS / "third-party").iterdir())]
    entries = [
        entry
        for folder in files
        if (folder / "kustomization.yaml").is_file()
        for entry in yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["images"]
    ]
    versions = {entry.get("newName", entry["name"]): entry["newTag"] for entry in entries}
    return [f"{name}:{versions[name]}" for name in REQUIRED]


def component(digests: dict[str, str]) -> str:
    """The kustomize Component that sets the digests."""
    images = "".join(f"  - name: {name}\n    digest: {digest}\n" for name, digest in sorted(digests.items()))
    return (
        "# Written by `make pin-images` from what was pushed; do not edit.\n"
        "apiVersion: kustomize.config.k8s.io/v1alpha1\n"
        f"kind: Component\nimages:\n{images}"
    )


def main(lines: list[str], folder: Path = PRODUCTION) -> int:
    """Write the Component; 0, or 2 with a message."""
    try:
        text = component(read_references(lines))
    except PinError as error:
        sys.stderr.write(f"pin-images: {error}\n")
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{folder}: {text.count('digest:')} images pinned\n")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--images"]:
        sys.stdout.write("\n".join(tagged_images()) + "\n")
    else:
        sys.exit(main(sys.stdin.readlines()))
