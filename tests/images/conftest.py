"""The images, built, and their containers, run as a restricted pod would run them."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from images.docker import inspect_image
from images.roles import ROLES, ROOT

DATA = "/data"
"""Where the tests' folder is mounted in every container."""
RESTRICTED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs Docker, and time for a first build."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(2400))


@dataclass(frozen=True, kw_only=True, slots=True)
class Containers:
    """Runs containers on their own network, with one folder of this machine in each."""

    folder: Path
    network: str

    def run(
        self, role: str, *command: str, environment: dict[str, str] | None = None, timeout_seconds: float = 600
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in an image to its end."""
        return subprocess.run(
            [*self._start(role, environment or {}), *command], capture_output=True, text=True, timeout=timeout_seconds
        )

    def output(self, role: str, *command: str, environment: dict[str, str] | None = None) -> str:
        """Standard output of a command that has to succeed."""
        result = self.run(role, *command, environment=environment)
        assert result.returncode == 0, f"{role}: {' '.join(command)[:200]}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def serve(self, role: str, name: str, *command: str) -> None:
        """Start a server that the other containers reach by a name."""
        options = ("--detach", "--name", f"{self.network}-{name}", "--network-alias", name)
        started = [*self._start(role, {}, options), *command]
        subprocess.run(started, check=True, capture_output=True, text=True)

    def logs(self, name: str) -> str:
        """What a server has printed."""
        result = subprocess.run(["docker", "logs", f"{self.network}-{name}"], capture_output=True, text=True)
        return result.stdout + result.stderr

    def _start(self, role: str, environment: dict[str, str], options: Sequence[str] = ()) -> list[str]:
        command = ["docker", "run", "--rm", "--pull=never", *RESTRICTED, *options, f"--network={self.network}"]
        command += [f"--volume={self.folder}:{DATA}"]
        for variable, value in environment.items():
            command += ["--env", f"{variable}={value}"]
        return [*command, ROLES[role].image]


@pytest.fixture(scope="session")
def images() -> None:
    """The images of this checkout; what is up to date costs seconds."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker daemon answers here, which building and running images needs")
    if os.environ.get("BASE_IMAGE") is None and shutil.which("debootstrap") is None and _no_base():
        pytest.skip("neither debootstrap nor a base image is here: install it, or set BASE_IMAGE")
    result = subprocess.run([sys.executable, "-m", "images.build"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def _no_base() -> bool:
    return inspect_image("python:3.11-slim-bookworm") is None and inspect_image(ROLES["base"].image) is None


@pytest.fixture(scope="session")
def containers(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Containers that share a folder and a network."""
    folder = tmp_path_factory.mktemp("images")
    folder.chmod(0o777)  # the containers' user is not the one who runs the tests
    network = f"vl3-images-{uuid.uuid4().hex[:8]}"
    subprocess.run(["docker", "network", "create", network], check=True, capture_output=True)
    yield Containers(folder=folder, network=network)
    listed = ["docker", "ps", "--all", "--quiet", "--filter", f"network={network}"]
    left = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    if left:
        subprocess.run(["docker", "rm", "--force", *left], check=True, capture_output=True)
    subprocess.run(["docker", "network", "rm", network], check=True, capture_output=True)
