"""What the kind cluster needs from a machine, and how missing things are reported."""

from dataclasses import replace

import pytest

from kind.machine import Machine, has_sys_resource, lacks

WHOLE = Machine(
    is_root=True,
    programs=frozenset({"docker", "dockerd", "go", "debootstrap"}),
    docker_answers=True,
    has_debian_image=False,
)


def test_a_whole_machine_lacks_nothing() -> None:
    assert lacks(WHOLE) == []


def test_root_starts_its_own_daemon() -> None:
    assert lacks(replace(WHOLE, docker_answers=False)) == []


def test_an_ordinary_user_needs_a_daemon_that_answers() -> None:
    machine = replace(WHOLE, is_root=False, docker_answers=False, has_debian_image=True, docker_says="refused")
    assert lacks(machine) == ["a Docker daemon that answers (refused): start it, or join its group"]


def test_an_ordinary_user_with_docker_needs_root_only_for_debootstrap() -> None:
    machine = replace(WHOLE, is_root=False)
    assert lacks(machine) == ["root, for debootstrap: start this as root"]
    assert lacks(replace(machine, has_debian_image=True)) == []


def test_everything_that_is_missing_is_named_at_once() -> None:
    machine = Machine(is_root=False, programs=frozenset(), docker_answers=False, has_debian_image=False)
    assert [line.partition(":")[0] for line in lacks(machine)] == [
        "docker",
        "go 1.26 or newer",
        "debootstrap",
        "root, for debootstrap",
    ]


@pytest.mark.parametrize(("mask", "has"), [("000001ffffffffff", True), ("000001fffeffffff", False)])
def test_sys_resource_is_bit_24(mask: str, has: bool) -> None:
    assert has_sys_resource(f"Name:\tx\nCapEff:\t0\nCapBnd:\t{mask}\n") is has
