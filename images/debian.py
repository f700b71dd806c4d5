"""Our own Debian image with Python 3.11 and one with a C compiler, for machines that cannot pull the stock image."""

import subprocess

from images.docker import CONTENT_LABEL, image_labels
from images.roles import IMAGES
from images.trees import ImageBuildError, content_digest
from vl3.system.retry import Pauses, retry

DEBIAN_IMAGE = "vl3/debian-python:bookworm"
COMPILER_IMAGE = "vl3/debian-compiler:bookworm"
"""The files of a C compiler and nothing else; they fit DEBIAN_IMAGE."""
_SCRIPT = IMAGES / "debian-base.sh"
_PAUSES = Pauses(first_seconds=10, longest_seconds=20)
"""Between the tries, because networks are unreliable."""


def debian_content() -> str:
    """Digest of the script, which the script also writes into the image's label."""
    return content_digest(_SCRIPT.read_text(encoding="utf-8"))


def has_debian() -> bool:
    """Whether Docker has both images of the current script."""
    return all(image_labels(name).get(CONTENT_LABEL) == debian_content() for name in (DEBIAN_IMAGE, COMPILER_IMAGE))


def ensure_debian() -> None:
    """Make the images unless the current script has made them before.

    Raises:
        ImageBuildError: the script failed three times; it has printed why.
    """
    if has_debian():
        return
    try:
        retry(
            lambda: subprocess.run([str(_SCRIPT), DEBIAN_IMAGE, COMPILER_IMAGE], check=True),
            may_pass=lambda error: isinstance(error, subprocess.CalledProcessError),
            pauses=_PAUSES,
            tries=3,
        )
    except subprocess.CalledProcessError as error:
        raise ImageBuildError(
            f"{_SCRIPT.name} failed three times (see above), so there is no base image. `make images BASE_IMAGE=...` "
            "uses another one."
        ) from error
