"""The worker's images: a containerd store on this machine that outlives the cluster, filled from Docker by streams."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kind.commands import pipe, run, say, step
from kind.docker import image_ids
from kind.layers import UnknownLayers, convert, shared_layers
from kind.settings import HERE, Settings

WORTH_BYTES = 200_000_000
"""From this size of shared layers on, filtering the stream is faster than loading the whole image."""
CTR = ("ctr", "--namespace", "k8s.io")


@dataclass(frozen=True, slots=True)
class NodeImage:
    """An image in a node."""

    name: str
    id: str
    """The same as Docker's."""
    layers: dict[str, int] = field(default_factory=dict, compare=False)
    """Digest -> size in bytes, from the bottom."""


def store_folder(settings: Settings, node_image: str) -> Path:
    """The store of a cluster; each node image has its own."""
    return settings.cache / "stores" / f"{settings.name}-{node_image.rpartition(':')[2]}"


def ensure_store(settings: Settings, node_image: str) -> Path:
    """The folder for the worker's /var/lib/containerd: copied from the node image, without old containers.

    It keeps images unpacked, so that a new cluster with the same node image has them at once.
    """
    store = store_folder(settings, node_image)
    store.parent.mkdir(parents=True, exist_ok=True)
    for other in store.parent.iterdir():
        if other != store and other.name.rpartition("-")[0] == settings.name:
            shutil.rmtree(other)
    with_store = ["docker", "run", "--rm", "--privileged", "--entrypoint", "bash"]
    if store.is_dir():
        script = f"{HERE / 'node' / 'clean-store.sh'}:/clean-store.sh:ro"
        mounts = ["--volume", f"{store}:/var/lib/containerd", "--volume", script]
        with step("remove old containers from the worker's store"):
            run([*with_store, *mounts, node_image, "/clean-store.sh"])
        return store
    with step("worker's image store"):
        new = store.with_name(f"{store.name}.{os.getpid()}")
        new.mkdir()
        run([*with_store, "--volume", f"{new}:/store", node_image, "-c", "cp -a /var/lib/containerd/. /store/"])
        new.rename(store)
    return store


def load_images(node: str, names: Iterable[str]) -> None:
    """Stream images from Docker into a node, without images and large layers that the node has."""
    known = image_ids()
    present = list_images(node)
    ids = {image.name: image.id for image in present}
    missing = [name for name in names if name in known and ids.get(full_name(name)) != known[name]]
    if not missing:
        return
    shared = layers_to_leave_out(missing, present)
    for name, layers in shared.items():
        with step(f"load {name}, without {sum(layers.values()) / 1e6:,.0f} MB that the node has"):
            if not load_rest(node, name, known[name], layers):
                say(f"{name}: loading the whole image instead")
                load_whole(node, [name])
    if whole := [name for name in missing if name not in shared]:
        with step(f"load {', '.join(whole)}"):
            load_whole(node, whole)
    run_in_node(node, "tidy-images.sh", *(full_name(name) for name in missing))


def load_whole(node: str, names: list[str]) -> None:
    """Load images in one stream with all layers, each once."""
    pipe(["docker", "save", *names], ["docker", "exec", "--interactive", node, *CTR, "images", "import", "-"])


def load_rest(node: str, name: str, image_id: str, present: dict[str, int]) -> bool:
    """Stream only the layers that are not `present`; returns False if the image has to be loaded whole.

    By ID, because the name may be given to another image meanwhile.
    """
    importing = ["docker", "exec", "--interactive", node, *CTR, "images", "import", "-"]
    with (
        subprocess.Popen(["docker", "save", image_id], stdout=subprocess.PIPE) as saving,
        subprocess.Popen(
            importing, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as loading,
    ):
        assert saving.stdout is not None
        assert loading.stdin is not None
        try:
            convert(saving.stdout, loading.stdin, full_name(name), present)
        except (UnknownLayers, tarfile.TarError, BrokenPipeError) as error:
            say(f"{name}: {error}")
        with suppress(BrokenPipeError):
            loading.stdin.close()
        saving.stdout.close()
        assert loading.stderr is not None
        said = loading.stderr.read().decode(errors="replace")
    if loading.returncode:
        say(f"{name}: {said.strip()}")
    return loading.returncode == 0 and NodeImage(full_name(name), image_id) in list_images(node)


def layers_to_leave_out(names: list[str], in_node: list[NodeImage]) -> dict[str, dict[str, int]]:
    """For images with enough shared layers: digest -> bytes of the layers that the node has already unpacked."""
    facts = json.loads(run(["docker", "image", "inspect", *names]))
    sizes = {digest: size for image in in_node for digest, size in image.layers.items()}
    left_out = {}
    for name, fact in zip(names, facts, strict=True):
        wanted = fact["RootFS"]["Layers"]
        count = shared_layers(wanted, [list(image.layers) for image in in_node])
        layers = {digest: sizes[digest] for digest in wanted[:count]}
        if sum(layers.values()) > WORTH_BYTES:
            left_out[name] = layers
    return left_out


def list_images(node: str) -> list[NodeImage]:
    """The images that a node has."""
    return [read_image(line) for line in run_in_node(node, "list-images.sh").splitlines()]


def read_image(line: str) -> NodeImage:
    """One line of list-images.sh."""
    facts = json.loads(line)
    layers = {layer["digest"]: layer["size"] for layer in facts["layers"]}
    return NodeImage(facts["name"], facts["id"], layers)


def run_in_node(node: str, script: str, *arguments: str) -> str:
    """Run a script of `node/` inside a node."""
    run(["docker", "cp", HERE / "node" / script, f"{node}:/kind/{script}"])
    return run(["docker", "exec", node, "bash", f"/kind/{script}", *arguments])


def missing_images(names: Iterable[str]) -> list[str]:
    """Images that Docker does not have, so that the cluster cannot get them."""
    known = image_ids()
    return [name for name in names if name not in known]


def full_name(image: str) -> str:
    """The name of an image in containerd: `vl3/postgres:kind` is docker.io/vl3/postgres:kind, `ghcr.io/...` stays."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"
