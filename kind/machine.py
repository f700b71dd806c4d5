"""What the machine needs: installs or starts what it can, and lists the rest in one message."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from images.debian import has_debian
from kind.commands import KindError, fetch, run, step, succeeds, tail
from kind.settings import HERE

CAP_SYS_RESOURCE = 24
DOCKERD_SECONDS = 60
DEBIAN_PACKAGES = {"docker": "docker.io", "dockerd": "docker.io", "runc": "runc", "debootstrap": "debootstrap"}
RUNC_WRAPPER = "runc-without-sys-resource"


class MachineLacks(KindError):
    """The machine cannot run the cluster; tests skip with this reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What the machine has."""

    is_root: bool
    programs: frozenset[str]
    """The needed programs that are installed."""
    docker_answers: bool
    has_debian_image: bool
    """debootstrap is needed only once."""
    docker_says: str = ""


def lacks(machine: Machine) -> list[str]:
    """One line for each missing thing, with its remedy."""
    missing = []
    if "docker" not in machine.programs:
        missing.append("docker: install it (Debian: apt-get install docker.io)")
    elif not machine.docker_answers and not (machine.is_root and "dockerd" in machine.programs):
        missing.append(
            f"a Docker daemon that answers ({machine.docker_says or 'no answer'}): start it, or join its group"
        )
    if "go" not in machine.programs:
        missing.append("go 1.26 or newer: install it from go.dev and put it into PATH")
    if not machine.has_debian_image:
        if "debootstrap" not in machine.programs:
            missing.append("debootstrap: install it (Debian: apt-get install debootstrap)")
        if not machine.is_root:
            missing.append("root, for debootstrap: start this as root")
    return missing


def look() -> Machine:
    """Find out what this machine has."""
    programs = frozenset(name for name in ("docker", "dockerd", "go", "debootstrap") if find(name))
    answer = "docker is not installed"
    docker_answers = has_image = False
    if "docker" in programs:
        said = subprocess.run(["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True)
        docker_answers = said.returncode == 0
        answer = (said.stderr.strip().splitlines() or [""])[-1]
        has_image = docker_answers and has_debian()
    return Machine(
        is_root=os.geteuid() == 0,
        programs=programs,
        docker_answers=docker_answers,
        has_debian_image=has_image,
        docker_says=answer,
    )


def find(program: str) -> str | None:
    """The path of a program; Debian installs some outside an ordinary user's PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin:/usr/sbin:/sbin")


def prepare(cache: Path) -> None:
    """Install and start what is missing if possible; afterwards Docker answers.

    Raises:
        MachineLacks: Something else is missing; the message lists everything.
    """
    os.environ["PATH"] += ":/usr/local/go/bin:/usr/sbin:/sbin"
    machine = look()
    if machine.is_root and not machine.has_debian_image and find("apt-get"):
        install(sorted({package for name, package in DEBIAN_PACKAGES.items() if _wanted(name, machine)}))
        machine = look()
    missing = lacks(machine)
    if missing:
        raise MachineLacks(
            "This machine cannot run the kind cluster. It lacks\n" + "\n".join(f"- {m}" for m in missing)
        )
    if not machine.docker_answers:
        start_dockerd(cache)
    elif not privileged_containers_run():
        wrapper = HERE / "node" / RUNC_WRAPPER
        raise MachineLacks(
            "This machine lacks CAP_SYS_RESOURCE, so its Docker daemon cannot start the privileged containers of kind. "
            f"Start it with --add-runtime nosr={wrapper} --default-runtime nosr."
        )


def _wanted(program: str, machine: Machine) -> bool:
    if machine.docker_answers and program in ("dockerd", "runc"):
        return False
    return not find(program)


def install(packages: list[str]) -> None:
    """Install Debian packages without starting their services."""
    if not packages:
        return
    with step(f"apt-get install {' '.join(packages)}"):
        quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        fetch(["apt-get", "update", "-q"], env=quiet)
        fetch(["apt-get", "install", "-yq", "--no-install-recommends", *packages], env=quiet)


def has_sys_resource(status: str) -> bool:
    """Whether processes on this machine can have CAP_SYS_RESOURCE, from the text of /proc/self/status.

    The bounding set also shows it to an ordinary user, who has no capabilities while the Docker daemon has all.
    `CapBnd: 000001ffffffffff` has bit 24 set; `CapBnd: 00000000a80425fb`, of a container, has not.
    """
    line = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


def privileged_containers_run() -> bool:
    """Whether the machine has the capability that runc needs, or uses a wrapper around runc that works without it."""
    if has_sys_resource(Path("/proc/self/status").read_text(encoding="utf-8")):
        return True
    return run(["docker", "info", "--format", "{{.DefaultRuntime}}"]).strip() != "runc"


def start_dockerd(cache: Path) -> None:
    """Start a Docker daemon, which keeps running when this process ends.

    Raises:
        KindError: It does not answer in time; the message has its last log lines.
    """
    cache.mkdir(parents=True, exist_ok=True)
    command = ["dockerd", "--storage-driver", "overlay2"]
    if not has_sys_resource(Path("/proc/self/status").read_text(encoding="utf-8")):
        wrapper = shutil.copy2(HERE / "node" / RUNC_WRAPPER, cache / RUNC_WRAPPER)
        command += ["--add-runtime", f"nosr={wrapper}", "--default-runtime", "nosr"]
    log = cache / "dockerd.log"
    with step("dockerd"), log.open("w", encoding="utf-8") as file:
        daemon = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        deadline = time.monotonic() + DOCKERD_SECONDS
        while not succeeds(["docker", "info"]):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise KindError(f"dockerd did not start; {log} ends with\n{tail(log.read_text(encoding='utf-8'))}")
            time.sleep(0.5)
