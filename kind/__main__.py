"""The kind cluster of the tests: `python -m kind prepare|up|down|status`.

`prepare` only installs and starts Docker if it can: for building images on a bare machine.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from kind import cluster as kind_cluster
from kind.commands import KindError, say
from kind.debian import ensure_debian
from kind.docker import CACHE_REPOSITORY, remove_others
from kind.images import controller_recipes, ensure_images, node_recipes, storage_recipes
from kind.machine import MachineLacks, look, prepare
from kind.node import NODE_REPOSITORY, ensure_node_image, pull_stock_image, root_recipe
from kind.programs import KIND, build_programs
from kind.settings import (
    DEFAULT_NAME,
    PROJECT_IMAGES,
    Settings,
    read_settings,
)
from kind.stack import Cluster, put_controllers, put_overlay
from kind.store import ensure_store, load_images, missing_images, store_folder
from vl3.system.locks import hold

EXIT_FAILED = 1
EXIT_MACHINE_LACKS = 4
"""As everywhere in vl3: the platform is at fault. Tests skip only on this code, with the message as the reason."""


def main() -> int:
    """Run the command; exit code 1 if it failed, 4 if the machine lacks something."""
    parser = argparse.ArgumentParser(prog="python -m kind", description=__doc__)
    parser.add_argument("command", choices=("prepare", "up", "down", "status"))
    parser.add_argument("--name", default=DEFAULT_NAME, help="name of another cluster next to the usual one")
    parser.add_argument("--caches", action="store_true", help="down: remove the caches as well")
    arguments = parser.parse_args()
    settings = read_settings(arguments.name)
    try:
        if arguments.command == "status":
            status(settings)
            return 0
        with only_one(settings):
            if arguments.command == "prepare":
                prepare(settings.cache)
            elif arguments.command == "up":
                up(settings)
            else:
                down(settings, caches=arguments.caches)
    except KindError as error:
        print(error, file=sys.stderr)
        return EXIT_MACHINE_LACKS if isinstance(error, MachineLacks) else EXIT_FAILED
    return 0


def only_one(settings: Settings) -> AbstractContextManager[object]:
    """Wait until no other `up` or `down` runs on this machine."""
    return hold(
        settings.cache.with_suffix(".lock"), on_wait=lambda: say("another `up` or `down` is running; waiting for it")
    )


def up(settings: Settings) -> None:
    """Build what is missing, start the cluster unless it runs, and install everything on it."""
    start = time.monotonic()
    prepare(settings.cache)
    programs, node_image, images, tags = build(settings)
    store = ensure_store_unless_running(settings, programs, node_image)
    config = kind_cluster.kind_config(settings.name, store)
    wanted = kind_cluster.identity(config, node_image)
    if kind_cluster.is_running(settings, programs["kind"], programs["kubectl"], wanted):
        say(f"cluster {settings.name} is already running")
    else:
        kind_cluster.create(settings, programs["kind"], config, node_image)
    # Only now: until it was recreated, an older cluster used an older image.
    remove_others(NODE_REPOSITORY, keep=[node_image])
    remove_others(CACHE_REPOSITORY, keep=tags)
    cluster = Cluster(programs["kubectl"], settings)
    load_images(settings.worker, images)
    if absent := missing_images(PROJECT_IMAGES):
        say(f"not in Docker, so not loaded into the cluster: {', '.join(absent)} (build with `make images`)")
    with ThreadPoolExecutor(max_workers=1) as pool:  # load gigabytes while the controllers wait for their certificates
        loading = pool.submit(load_images, settings.worker, PROJECT_IMAGES)
        put_controllers(cluster)
        loading.result()
    put_overlay(cluster)
    say(f"ready after {time.monotonic() - start:.0f} s: export KUBECONFIG={settings.kubeconfig}")


def build(settings: Settings) -> tuple[dict[str, Path], str, list[str], list[str]]:
    """Build and return the programs, the node image, the worker's images, and the cache tags of all images.

    The Go builds run in parallel with debootstrap.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        building = pool.submit(build_programs, settings.cache)
        debian = ensure_debian()
        images = ensure_images(storage_recipes(), debian)
        programs = building.result()
    images |= ensure_images(controller_recipes(programs))
    node_image = pull_stock_image() if settings.pull else None
    node_images: dict[str, str] = {}
    if node_image is None:
        node_images = ensure_images(node_recipes(programs), debian)
        node_image = ensure_node_image(programs, node_images, debian)
    tags = [*images.values(), *node_images.values(), debian, root_recipe(programs).tag(debian)]
    return programs, node_image, list(images), tags


def ensure_store_unless_running(settings: Settings, programs: Mapping[str, Path], node_image: str) -> Path:
    """The worker's image store, which is not touched while a running cluster uses it."""
    store = store_folder(settings, node_image)
    wanted = kind_cluster.identity(kind_cluster.kind_config(settings.name, store), node_image)
    if kind_cluster.is_running(settings, programs["kind"], programs["kubectl"], wanted):
        return store
    if settings.name in kind_cluster.clusters(programs["kind"]):
        kind_cluster.delete(settings, programs["kind"])
    return ensure_store(settings, node_image)


def down(settings: Settings, *, caches: bool) -> None:
    """Delete the cluster; with `caches` also the built programs, image stores and images."""
    if not look().docker_answers:
        say("there is no Docker daemon, so there is no cluster")
        return
    kind = build_programs(settings.cache, [KIND])["kind"]
    if settings.name in kind_cluster.clusters(kind):
        kind_cluster.delete(settings, kind)
    else:
        say(f"there is no cluster {settings.name}")
    if caches:
        remove_caches(settings, kind_cluster.clusters(kind))


def remove_caches(settings: Settings, running: list[str]) -> None:
    """Remove everything that `up` built.

    Raises:
        KindError: Another cluster uses it.
    """
    if running:
        raise KindError(f"The caches are kept: the clusters {', '.join(running)} use them. Take those down first.")
    remove_others(CACHE_REPOSITORY, keep=())
    remove_others(NODE_REPOSITORY, keep=())
    shutil.rmtree(settings.cache, ignore_errors=True)
    say(f"removed {settings.cache} and the images {CACHE_REPOSITORY} and {NODE_REPOSITORY}")


def status(settings: Settings) -> None:
    """Print the nodes and Deployments of the running cluster."""
    kind_cluster.node_image_of(settings)
    programs = build_programs(settings.cache)
    cluster = Cluster(programs["kubectl"], settings)
    print(cluster.kubectl("get", "nodes"))
    print(cluster.kubectl("get", "deployments", "--all-namespaces"))
    print(f"export KUBECONFIG={settings.kubeconfig}")


if __name__ == "__main__":
    sys.exit(main())
