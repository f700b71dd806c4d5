"""The Debian base image, made by debootstrap: no registry is asked."""

from tests.cluster.kind.commands import fetch, run, step
from tests.cluster.kind.content import hash_of
from tests.cluster.kind.docker import CACHE_REPOSITORY, image_ids
from tests.cluster.kind.settings import DEBIAN_IMAGE, ROOT

SCRIPT = ROOT / "images" / "debian-base.sh"
"""Also makes the base of the project's own images, so that all share one layer."""


def ensure_debian() -> str:
    """Make the base image unless it is there, maybe from `make images`; return its tag in the cache."""
    tag = f"{CACHE_REPOSITORY}:debian-{hash_of(SCRIPT)}"
    known = image_ids()
    if tag in known:
        if known.get(DEBIAN_IMAGE) != known[tag]:
            run(["docker", "tag", tag, DEBIAN_IMAGE])
        return tag
    if DEBIAN_IMAGE not in known:
        with step(f"image {DEBIAN_IMAGE} (debootstrap)"):
            fetch(["bash", SCRIPT, DEBIAN_IMAGE])
    run(["docker", "tag", DEBIAN_IMAGE, tag])
    return tag
