"""`make kind-up` after a change: old images go, but not from under a container."""

import uuid

import pytest

from kind.commands import run
from kind.docker import image_ids, remove_others


@pytest.mark.usefixtures("cluster")
def test_an_image_stays_while_a_container_stands_on_it() -> None:
    repository = f"vl3/test-{uuid.uuid4().hex[:8]}"
    for tag in ("kept", "used", "old"):
        run(["docker", "build", "--tag", f"{repository}:{tag}", "-"], text=f"FROM scratch\nLABEL tag={tag}\n")
    container = run(["docker", "create", f"{repository}:used", "true"]).strip()

    remove_others(repository, keep=[f"{repository}:kept"])
    assert _tags(repository) == {"kept", "used"}

    run(["docker", "rm", container])
    remove_others(repository, keep=[f"{repository}:kept"])
    assert _tags(repository) == {"kept"}
    remove_others(repository, keep=())
    assert _tags(repository) == set()


def _tags(repository: str) -> set[str]:
    return {name.rpartition(":")[2] for name in image_ids() if name.startswith(f"{repository}:")}
