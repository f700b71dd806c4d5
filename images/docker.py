"""Requests to Docker: facts about an image, and a build from a streamed context."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from images.context import write_context
from images.trees import ImageBuildError

CONTENT_LABEL = "vl3.dev/content"
"""Label with the digest of what an image was made from, so that the same content is not built again."""


def require_docker() -> None:
    """Check that a Docker daemon answers.

    Raises:
        ImageBuildError: there is none.
    """
    if shutil.which("docker") is None:
        raise ImageBuildError("docker is missing. Install it (Debian: apt-get install docker.io) and start again.")
    result = subprocess.run(["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip() or "no answer").splitlines()[-1]
        raise ImageBuildError(f"no Docker daemon answers: {reason}. Start dockerd, or set DOCKER_HOST to one.")


def inspect_image(name: str) -> dict[str, Any] | None:
    """Docker's facts about a local image; None if there is none with that name."""
    result = subprocess.run(["docker", "image", "inspect", name], capture_output=True, text=True)
    return json.loads(result.stdout)[0] if result.returncode == 0 else None


def image_id(name: str) -> str | None:
    """Id of a local image; None if there is none with that name."""
    facts = inspect_image(name)
    return str(facts["Id"]) if facts else None


def remove_images(identities: Iterable[str | None]) -> None:
    """Remove images that have no name any more and that no container uses."""
    for identity in identities:
        facts = inspect_image(identity) if identity else None
        if facts is not None and not facts["RepoTags"]:
            subprocess.run(["docker", "image", "rm", str(facts["Id"])], capture_output=True)


def image_labels(name: str) -> dict[str, str]:
    """Labels of a local image; empty if there is no such image."""
    facts = inspect_image(name)
    return (facts["Config"].get("Labels") or {}) if facts else {}


def build_image(
    name: str, parts: Mapping[str, Path], *, arguments: Mapping[str, str], labels: Mapping[str, str]
) -> None:
    """Build an image from the parts of its context, which include its Dockerfile.

    Raises:
        ImageBuildError: a step of the Dockerfile failed; the message has Docker's last lines.
    """
    command = ["docker", "build", "--tag", name, "--force-rm"]
    for argument, value in arguments.items():
        command += ["--build-arg", f"{argument}={value}"]
    for label, value in labels.items():
        command += ["--label", f"{label}={value}"]
    process = subprocess.Popen(
        [*command, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | _builder(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin as stream:
            write_context(stream, parts)
    except BrokenPipeError:
        pass  # Docker has ended early; its output below says why
    output = process.stdout.read().decode(errors="replace")
    if process.wait():
        tail = "\n".join(output.strip().splitlines()[-15:])
        raise ImageBuildError(f"docker could not build {name}:\n{tail}")


def _builder() -> dict[str, str]:
    """BuildKit if its plugin is installed; otherwise the variable without which such a client refuses to build."""
    has_buildx = subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0
    return {} if has_buildx else {"DOCKER_BUILDKIT": "0"}
