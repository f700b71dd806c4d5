"""Build the images: `python -m images.build [ROLE...]`, or `make images`.

BASE_IMAGE names what the base image stands on (python:3.11-slim-bookworm, or a company's own with Python 3.11).
Without it, and where Docker has no python:3.11-slim-bookworm, a Debian image is made here by images/debian-base.sh.
An image whose content has not changed is left as it is; its label vl3.dev/content says what it was made from.
"""

import argparse
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from images.docker import build_image, image_id, image_labels, inspect_image, remove_images, require_docker
from images.roles import IMAGES, ROLES, ROOT, Role, with_parents
from images.trees import ImageBuildError, content_digest, libraries_tree, tree_content, vl3_tree

CONTENT_LABEL = "vl3.dev/content"
SOURCE = "https://github.com/vl3/vl3"
_STOCK_BASE = "python:3.11-slim-bookworm"
_OWN_BASE = "vl3/debian-python:bookworm"


def main() -> int:
    """Build what is asked for and what it stands on; print name, size and time of each."""
    parser = argparse.ArgumentParser(prog="images.build", description=__doc__.partition("\n")[0])
    parser.add_argument("roles", nargs="*", metavar="ROLE", help=f"which to build: {', '.join(ROLES)}; all, if none")
    roles: list[str] = parser.parse_args().roles
    unknown = [name for name in roles if name not in ROLES]
    if unknown:
        parser.error(f"no image is called {', '.join(unknown)}; there are {', '.join(ROLES)}")
    try:
        require_docker()
        base_image = find_base_image()
        wanted = with_parents(roles)
        former = [image_id(role.image) for role in wanted]
        for role in wanted:
            build_role(role, base_image)
        remove_images(former[::-1])
    except ImageBuildError as error:
        print(f"[images] {error}", file=sys.stderr)
        return 2
    return 0


def find_base_image() -> str:
    """BASE_IMAGE, or the stock Python image where Docker has it, or a Debian image made here.

    Raises:
        ImageBuildError: there is none, and none can be made.
    """
    asked = os.environ.get("BASE_IMAGE", "")
    if asked:
        if inspect_image(asked) is None and subprocess.run(["docker", "pull", "--quiet", asked]).returncode:
            raise ImageBuildError(f"BASE_IMAGE={asked} is neither here nor can it be pulled. Correct its name.")
        return asked
    for name in (_STOCK_BASE, _OWN_BASE):
        if inspect_image(name) is not None:
            return name
    if subprocess.run([str(IMAGES / "debian-base.sh"), _OWN_BASE]).returncode:
        raise ImageBuildError("no base image could be made, see above. Give one: make images BASE_IMAGE=...")
    return _OWN_BASE


def build_role(role: Role, base_image: str) -> bool:
    """Build one image, unless it is up to date.

    Returns:
        Whether it was built.

    Raises:
        ImageBuildError: it cannot be built.
    """
    started = time.monotonic()
    parts = context_parts(role)
    parent = ROLES[role.parent].image if role.parent else base_image
    content = content_of(role, parts, parent)
    is_current = image_labels(role.image).get(CONTENT_LABEL) == content
    if not is_current:
        arguments = {"BASE_IMAGE": parent, "VERSION": project_version(), "REVISION": revision(), "SOURCE": SOURCE}
        build_image(role.image, parts, arguments=arguments, labels={CONTENT_LABEL: content})
    facts = inspect_image(role.image)
    assert facts is not None
    what = "is up to date" if is_current else f"built in {time.monotonic() - started:.0f} s"
    print(f"[images] {role.image}: {facts['Size'] / 1e6:,.0f} MB, {what}", flush=True)
    return not is_current


def context_parts(role: Role) -> dict[str, Path]:
    """What the build of a role is given, by its name in the context."""
    parts = {"Dockerfile": role.folder / "Dockerfile"}
    if role.requirements is not None:
        parts["libraries"] = libraries_tree(role)
    if role.name == "launcher":
        parts["requirements/trainer.txt"] = ROLES["trainer"].folder / "requirements.txt"
    if role.has_vl3:
        parts["vl3"] = vl3_tree()
    return parts


def content_of(role: Role, parts: dict[str, Path], parent: str) -> str:
    """Digest over all that an image is made from; the commit and the time have no part in it."""
    pieces = [f"{name} {content_digest(_mark(path))}" for name, path in sorted(parts.items())]
    facts = inspect_image(parent)
    beneath = image_labels(parent).get(CONTENT_LABEL) or (facts or {}).get("Id", "")
    return content_digest(role.name, project_version(), beneath, *pieces)


def project_version() -> str:
    """The version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def revision() -> str:
    """The commit that is checked out, marked where the files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def _mark(path: Path) -> str:
    """The text that stands for a part: a tree's digest, or the file itself."""
    return tree_content(path) if path.is_dir() else path.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
