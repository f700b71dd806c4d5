"""The node image: kind's stock one if it can be pulled, otherwise one made here from Debian and Go modules."""

import time
from collections.abc import Mapping
from pathlib import Path

from kind.commands import KindError, pipe, run, say, step, succeeds
from kind.content import hash_of
from kind.docker import ImageRecipe, ensure_image, image_ids
from kind.programs import CNI_PLUGINS, module_folder
from kind.settings import HERE, KUBERNETES_VERSION

NODE_REPOSITORY = "vl3/kind-node"
STOCK_IMAGE = "kindest/node"
PULL_SECONDS = 60
CONTAINERD_SECONDS = 30


def pull_stock_image() -> str | None:
    """Kind's own node image of this version, or None if it cannot be pulled."""
    image = f"{STOCK_IMAGE}:{KUBERNETES_VERSION}"
    if image in image_ids():
        return image
    say(f"trying to pull {image}, at most {PULL_SECONDS} s")
    return image if succeeds(["docker", "pull", "--quiet", image], timeout=PULL_SECONDS) else None


def ensure_node_image(programs: Mapping[str, Path], images: Mapping[str, str], debian: str) -> str:
    """Make the node image unless the same one exists; returns its name.

    Args:
        programs: The built Go programs.
        images: Image name -> cache tag of the images that every node needs to start.
        debian: Cache tag of the base image.
    """
    recipe = root_recipe(programs)
    image = f"{NODE_REPOSITORY}:{hash_of(recipe.tag(debian), sorted(images.values()))}"
    if image not in image_ids():
        root = ensure_image(recipe, debian)
        with step("node image"):
            _preload(root, sorted(images), image)
    return image


def root_recipe(programs: Mapping[str, Path]) -> ImageRecipe:
    """The node without the images in it: systemd, containerd, the kubelet and kind's own files."""
    dockerfile = (HERE / "node" / "Dockerfile").read_text(encoding="utf-8")
    names = ("kubeadm", "kubelet", "kubectl", "calico", *CNI_PLUGINS)
    kind_files = module_folder("kind", "sigs.k8s.io/kind") / "images" / "base" / "files"
    return ImageRecipe(
        name="vl3/kind-root:kind",
        dockerfile=dockerfile.replace("KUBERNETES_VERSION", KUBERNETES_VERSION),
        files={
            **{name: programs[name] for name in names},
            "kind-files": kind_files,
            "manifests": HERE / "node" / "manifests",
        },
    )


def _preload(root: str, names: list[str], image: str) -> None:
    """Import images into the containerd of a container of `root` and commit the result as `image`."""
    container = run(["docker", "run", "--detach", "--privileged", "--entrypoint", "containerd", root]).strip()
    try:
        _wait_for_containerd(container)
        load = ["docker", "exec", "--interactive", container, "ctr", "--namespace", "k8s.io", "images", "import"]
        pipe(["docker", "save", *names], [*load, "--all-platforms", "--no-unpack", "--digests", "-"])
        run(["docker", "stop", "--time", "10", container])
        loaded = f"{image}-loaded"
        run(["docker", "commit", container, loaded])
    finally:
        run(["docker", "rm", "--force", "--volumes", container])
    # `docker commit` cannot restore the entry point, which was replaced above, and the stop signal.
    dockerfile = f'FROM {loaded}\nSTOPSIGNAL SIGRTMIN+3\nENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]\n'
    run(["docker", "build", "--tag", image, "-"], text=dockerfile)
    run(["docker", "rmi", loaded])


def _wait_for_containerd(container: str) -> None:
    deadline = time.monotonic() + CONTAINERD_SECONDS
    while not succeeds(["docker", "exec", container, "ctr", "version"]):
        if time.monotonic() > deadline:
            said = run(["docker", "logs", "--tail", "5", container])
            raise KindError(f"containerd in the node image did not answer within {CONTAINERD_SECONDS} s: {said}")
        time.sleep(0.3)
