"""The Debian image of our own with Python 3.11, for machines where the stock image cannot be pulled."""

import subprocess

from images.docker import CONTENT_LABEL, image_labels
from images.roles import IMAGES
from images.trees import ImageBuildError, content_digest
from vl3.system.retry import Pauses, retry

DEBIAN_IMAGE = "vl3/debian-python:bookworm"
_SCRIPT = IMAGES / "debian-base.sh"
_PAUSES = Pauses(first_seconds=10, longest_seconds=20)
"""Between the attempts, for networks that stumble."""


def debian_content() -> str:
    """What the image is made from: the digest that the script writes into its label."""
    return content_digest(_SCRIPT.read_text(encoding="utf-8"))


def has_debian() -> bool:
    """Whether Docker has the image as the present script makes it."""
    return image_labels(DEBIAN_IMAGE).get(CONTENT_LABEL) == debian_content()


def ensure_debian() -> None:
    """Make the image unless the present script has made it before.

    Raises:
        ImageBuildError: the script failed three times; it has said why.
    """
    if has_debian():
        return
    try:
        retry(
            lambda: subprocess.run([str(_SCRIPT), DEBIAN_IMAGE], check=True),
            may_pass=lambda error: isinstance(error, subprocess.CalledProcessError),
            pauses=_PAUSES,
            tries=3,
        )
    except subprocess.CalledProcessError as error:
        raise ImageBuildError(
            f"{_SCRIPT.name} failed three times, see above: no base image. For `make images`, BASE_IMAGE=... gives "
            "another."
        ) from error
