"""The worker's images: a containerd store on this machine that outlives the cluster, filled by streams."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.kind.commands import pipe, run, step
from tests.cluster.kind.docker import image_ids
from tests.cluster.kind.settings import HERE, Settings

CTR = ("ctr", "--namespace", "k8s.io")


def ensure_store(settings: Settings, node_image: str) -> Path:
    """The folder for the worker's /var/lib/containerd: seeded from the node image, without old containers.

    Images stay unpacked in it, so that a new cluster with the same node image has them at once.
    """
    kind_of_node = node_image.rpartition(":")[2]
    store = settings.cache / "stores" / f"{settings.name}-{kind_of_node}"
    for other in store.parent.glob(f"{settings.name}-*"):
        if other != store:
            shutil.rmtree(other)
    with_store = ["docker", "run", "--rm", "--privileged", "--entrypoint", "bash"]
    if store.is_dir():
        script = f"{HERE / 'node' / 'clean-store.sh'}:/clean-store.sh:ro"
        mounts = ["--volume", f"{store}:/var/lib/containerd", "--volume", script]
        with step("old containers out of the worker's store"):
            run([*with_store, *mounts, node_image, "/clean-store.sh"])
        return store
    with step("worker's image store"):
        new = store.with_name(f".{store.name}.{os.getpid()}")
        new.mkdir(parents=True)
        run([*with_store, "--volume", f"{new}:/store", node_image, "-c", "cp -a /var/lib/containerd/. /store/"])
        new.rename(store)
    return store


def load_images(node: str, names: Iterable[str]) -> None:
    """Stream images from Docker into a node, without a file between; what the node has by content is left out."""
    known = image_ids()
    present = node_images(run(["docker", "exec", node, *CTR, "images", "ls"]))
    missing = [name for name in names if name in known and present.get(full_name(name)) != known[name]]
    if not missing:
        return
    with step(f"load {', '.join(missing)}"):
        pipe(
            ["docker", "save", *missing],
            ["docker", "exec", "--interactive", node, *CTR, "images", "import", "-"],
        )
        run(["docker", "cp", HERE / "node" / "drop-layers.sh", f"{node}:/kind/drop-layers.sh"])
        run(["docker", "exec", node, "bash", "/kind/drop-layers.sh", *(full_name(name) for name in missing)])


def missing_images(names: Iterable[str]) -> list[str]:
    """Images that Docker lacks, and that the cluster can therefore not get."""
    known = image_ids()
    return [name for name in names if name not in known]


def node_images(listing: str) -> dict[str, str]:
    """Image name -> image ID, from `ctr images ls`.

    containerd names an image by its manifest; the kubelet's side of it adds a second name, the image ID, to the same
    manifest. That ID is the one that Docker shows.
    """
    rows = [line.split() for line in listing.splitlines()[1:]]
    ids = {row[2]: row[0] for row in rows if len(row) > 2 and row[0].startswith("sha256:")}
    named = (row for row in rows if len(row) > 2 and not row[0].startswith("sha256:") and "@" not in row[0])
    return {row[0]: ids[row[2]] for row in named if row[2] in ids}


def full_name(image: str) -> str:
    """The name that containerd gives to an image that Docker calls `image`."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"
