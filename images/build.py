"""Build the images: `python -m images.build [ROLE...]`, or `make images`.

BASE_IMAGE is the image below the base image (python:3.11-slim-bookworm, or a company's own with Python 3.11). If it is
not set and Docker has no python:3.11-slim-bookworm, images/debian-base.sh makes a Debian image. An image whose content
has not changed is not built again; its label vl3.dev/content is a digest of what it was made from.
"""

import argparse
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from images.debian import COMPILER_IMAGE, DEBIAN_IMAGE, ensure_debian
from images.docker import (
    CONTENT_LABEL,
    build_image,
    image_id,
    image_labels,
    inspect_image,
    remove_images,
    require_docker,
)
from images.roles import IMAGES, ROLES, ROOT, Role, with_parents
from images.trees import TREES, ImageBuildError, content_digest, libraries_tree, tree_content, vl3_tree
from vl3.system.locks import hold

SOURCE = "https://github.com/vl3/vl3"
_STOCK_BASE = "python:3.11-slim-bookworm"


def main() -> int:
    """Build the requested images and their parents; print name, size and time of each."""
    parser = argparse.ArgumentParser(prog="images.build", description=__doc__.partition("\n")[0])
    parser.add_argument("roles", nargs="*", metavar="ROLE", help=f"which to build: {', '.join(ROLES)}; default: all")
    roles: list[str] = parser.parse_args().roles
    unknown = [name for name in roles if name not in ROLES]
    if unknown:
        parser.error(f"unknown images: {', '.join(unknown)}; choose from {', '.join(ROLES)}")
    try:
        require_docker()
        with hold(TREES / "lock", on_wait=_say_wait):  # two builds would write the same trees
            builder = ImageBuilder(find_base_image())
            for role in with_parents(roles):
                print(f"[images] {builder.build(role)}", flush=True)
            builder.clean()
    except ImageBuildError as error:
        print(f"[images] {error}", file=sys.stderr)
        return 2
    return 0


def _say_wait() -> None:
    print("[images] another build is running in this checkout; waiting for it", flush=True)


def find_base_image() -> str:
    """BASE_IMAGE, or the stock Python image if Docker has it, or a Debian image made here.

    Raises:
        ImageBuildError: there is none, and none can be made.
    """
    asked = os.environ.get("BASE_IMAGE", "")
    if asked:
        if inspect_image(asked) is None and subprocess.run(["docker", "pull", "--quiet", asked]).returncode:
            raise ImageBuildError(f"BASE_IMAGE={asked} is not in Docker and cannot be pulled. Correct its name.")
        return asked
    if inspect_image(_STOCK_BASE) is not None:
        return _STOCK_BASE
    ensure_debian()
    return DEBIAN_IMAGE


class ImageBuilder:
    """Builds images on one base image, and afterwards removes those that they replaced."""

    def __init__(self, base_image: str) -> None:
        self._base_image = base_image
        self._replaced: list[str | None] = []

    def build(self, role: Role) -> str:
        """Build one image unless it is up to date; returns a line about the result.

        Raises:
            ImageBuildError: it cannot be built.
        """
        started = time.monotonic()
        parent = ROLES[role.parent].image if role.parent else self._base_image
        parts = {"Dockerfile": role.folder / "Dockerfile"}
        if role.has_vl3:
            parent = self._build_libraries(role, parent)
            parts["vl3"] = vl3_tree()
        elif role.requirements is not None:
            parts["libraries"] = libraries_tree(role)
        if role.name == "torch" and self._base_image == DEBIAN_IMAGE:
            parent = self._build_compiler(parent)
        if role.name == "launcher":
            parts["requirements/trainer.txt"] = ROLES["trainer"].folder / "requirements.txt"
        is_built = self._build(role.image, parts, parent)
        facts = inspect_image(role.image)
        assert facts is not None
        what = f"built in {time.monotonic() - started:.0f} s" if is_built else "is up to date"
        return f"{role.image}: {facts['Size'] / 1e6:,.0f} MB, {what}"

    def clean(self) -> None:
        """Remove the images that newer ones have replaced, children first."""
        remove_images(self._replaced[::-1])

    def _build_compiler(self, parent: str) -> str:
        """Build the image below torch's, which is not pushed: a C compiler on our own base; returns its name."""
        name = "vl3/compiler:local"
        self._build(name, {"Dockerfile": IMAGES / "compiler.Dockerfile"}, parent)
        return name

    def _build_libraries(self, role: Role, parent: str) -> str:
        """Build the image of a role's libraries, which is not pushed; returns its name."""
        name = f"vl3/{role.name}-libraries:local"
        parts = {"Dockerfile": IMAGES / "libraries.Dockerfile", "libraries": libraries_tree(role)}
        self._build(name, parts, parent)
        return name

    def _build(self, name: str, parts: dict[str, Path], parent: str) -> bool:
        """Build an image from its parts, unless one with that name and content exists."""
        content = content_of(parts, parent)
        if image_labels(name).get(CONTENT_LABEL) == content:
            return False
        former = image_id(name)
        known = {"BASE_IMAGE": parent, "COMPILER_IMAGE": COMPILER_IMAGE, "SOURCE": SOURCE}
        known |= {"VERSION": project_version(), "REVISION": revision()}
        taken = parts["Dockerfile"].read_text(encoding="utf-8").splitlines()
        arguments = {key: value for key, value in known.items() if f"ARG {key}" in taken}
        build_image(name, parts, arguments=arguments, labels={CONTENT_LABEL: content})
        self._replaced.append(former)
        return True


def content_of(parts: dict[str, Path], parent: str) -> str:
    """Digest over everything that an image is made from, except the commit and the time."""
    pieces = [f"{name} {content_digest(_mark(path))}" for name, path in sorted(parts.items())]
    facts = inspect_image(parent)
    beneath = image_labels(parent).get(CONTENT_LABEL) or (facts or {}).get("Id", "")
    return content_digest(project_version(), beneath, *pieces)


def project_version() -> str:
    """The version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def revision() -> str:
    """The commit that is checked out, with `-dirty` if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def _mark(path: Path) -> str:
    """The text that stands for a part: a tree's digest, or the file itself."""
    return tree_content(path) if path.is_dir() else path.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
