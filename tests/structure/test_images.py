"""What the Dockerfiles and the locked requirements must keep to, read as text: no Docker is needed."""

import re
from pathlib import Path

import pytest

from images.lock import is_current, source_file
from images.roles import IMAGES, ROLES, ROOT, Role, rule_lines
from vl3.workflow.code import read_pins

LABELS = ("title", "description", "version", "revision", "source")
HOST = re.compile(r"https?://|\b[\w-]+\.(com|org|io|net|dev)\b(?!/content)")
LOCKED = [role for role in ROLES.values() if source_file(role).exists()]
every_role = pytest.mark.parametrize("role", ROLES.values(), ids=list(ROLES))
every_locked_role = pytest.mark.parametrize("role", LOCKED, ids=[role.name for role in LOCKED])


def instructions(role: Role) -> list[str]:
    """The instructions of a role's Dockerfile, continued lines joined."""
    text = (role.folder / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_every_folder_is_a_role_and_every_role_a_folder() -> None:
    assert {path.parent.name for path in IMAGES.glob("*/Dockerfile")} == set(ROLES)


@every_role
def test_dockerfile_stands_on_the_image_it_is_given(role: Role) -> None:
    lines = instructions(role)
    assert lines[:2] == ["ARG BASE_IMAGE", "FROM ${BASE_IMAGE}"]
    assert sum(line.startswith("FROM ") for line in lines) == 1, "one stage: what is laid out here is copied"


@every_role
def test_dockerfile_runs_as_a_numbered_ordinary_user(role: Role) -> None:
    users = [line for line in instructions(role) if line.startswith("USER ")]
    assert users == (["USER 65532:65532"] if role.name == "base" else []), "a number, for runAsNonRoot to see"


@every_role
def test_dockerfile_fetches_nothing_and_names_no_host(role: Role) -> None:
    lines = instructions(role)
    assert not [line for line in lines if line.startswith("ADD ")], "COPY what this machine has laid out"
    runs = [line for line in lines if line.startswith("RUN ")]
    assert not runs or role.name == "base", "libraries come as trees: a RUN would need an index and leave its cache"
    for line in lines:
        found = HOST.search(line.replace("org.opencontainers.image.", ""))
        assert not found, f"{role.name}: {found and found.group()!r} belongs in no Dockerfile"


@every_role
def test_dockerfile_labels_its_image(role: Role) -> None:
    labels = [line for line in instructions(role) if line.startswith("LABEL ")]
    assert len(labels) == 1
    found = re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]+)"', labels[0])
    assert tuple(name for name, _ in found) == LABELS
    assert dict(found)["title"] == f"vl3 {role.name}"
    assert instructions(role)[-1] == labels[0], "the commit changes most often, so it comes last"


@every_role
def test_own_code_is_the_last_layer(role: Role) -> None:
    copied = [line.split()[1] for line in instructions(role) if line.startswith("COPY ")]
    if role.has_vl3:
        assert copied[-1] == "vl3/"
        assert "libraries/" not in copied, "libraries have a layer of their own below: images/libraries.Dockerfile"
    else:
        assert copied == ([] if role.name == "base" else ["libraries/"])


@every_locked_role
def test_requirements_are_locked_to_versions_alone(role: Role) -> None:
    assert role.requirements is not None
    for line in rule_lines(role.requirements):
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][\w.!+-]*", line), f"{role.name}: {line!r} is no name==version"


@every_locked_role
def test_requirements_were_locked_from_what_is_asked_for(role: Role) -> None:
    assert is_current(role), f"images/{role.name}/requirements.txt is out of date: run `python -m images.lock`"
    assert role.requirements is not None
    pins = read_pins(role.requirements)
    for line in rule_lines(source_file(role)):
        name, _, _ = line.partition("[")
        assert name in pins, f"{role.name} asks for {name}, which is not locked: run `python -m images.lock`"


@every_locked_role
def test_images_hold_the_versions_that_the_tests_run_with(role: Role) -> None:
    assert role.requirements is not None
    tested = read_pins(ROOT / "constraints.txt")
    for name, version in read_pins(role.requirements).items():
        assert tested.get(name, version) == version, (
            f"{role.name} has {name} {version}, constraints.txt {tested[name]}: run `python -m images.lock`"
        )


@every_locked_role
def test_an_image_keeps_the_versions_of_its_parent(role: Role) -> None:
    assert role.requirements is not None
    parent = ROLES[role.parent].requirements if role.parent else None
    pins = read_pins(role.requirements)
    for name, version in (read_pins(parent) if parent else {}).items():
        assert pins.get(name) == version, f"{role.name} would lay another {name} over its parent's {version}"


@pytest.mark.parametrize("name", ["launcher", "data", "mlflow"])
def test_torch_is_in_no_light_image(name: str) -> None:
    pins = read_pins(ROLES[name].folder / "requirements.txt")
    heavy = [pin for pin in pins if pin == "torch" or pin.startswith("nvidia-")]
    assert not heavy


def test_image_names_are_written_in_one_place() -> None:
    named = [
        path for path in Path(IMAGES).rglob("*") if path.is_file() and "ghcr.io" in path.read_text(errors="ignore")
    ]
    assert [path for path in named if "__pycache__" not in path.parts] == []
