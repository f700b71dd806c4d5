"""The Debian base image, made by debootstrap without a registry. The project's own images share its layer."""

from images.debian import DEBIAN_IMAGE, debian_content
from images.debian import ensure_debian as ensure_image
from images.trees import ImageBuildError
from kind.commands import KindError, run
from kind.docker import CACHE_REPOSITORY


def ensure_debian() -> str:
    """Make the base image unless it exists, maybe from `make images`; returns its tag in the cache."""
    try:
        ensure_image()
    except ImageBuildError as error:
        raise KindError(str(error)) from None
    tag = f"{CACHE_REPOSITORY}:debian-{debian_content()[:16]}"
    run(["docker", "tag", DEBIAN_IMAGE, tag])
    return tag
