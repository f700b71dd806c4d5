"""What the watchers have reported of an attempt's objects."""

from typing import Any

import pytest

from vl3.launch.jobs.observed import ObservedObjects
from vl3.launch.kube.resources import PODS
from vl3.launch.kube.watch import Change
from vl3.launch.trainjob.kind import TRAINJOB

JOB = {"metadata": {"name": "job", "uid": "1"}, "spec": {}}


def pod(name: str, image: str | None) -> dict[str, Any]:
    statuses = [] if image is None else [{"name": "node", "image": "trainer:0.1.0", "imageID": image}]
    return {"metadata": {"name": name, "uid": name}, "spec": {}, "status": {"containerStatuses": statuses}}


@pytest.mark.parametrize(
    ("reported", "images"),
    [
        (["ghcr.io/vl3/trainer@sha256:ab", "ghcr.io/vl3/trainer@sha256:ab"], ("ghcr.io/vl3/trainer@sha256:ab",)),
        (["docker-pullable://trainer@sha256:ab", ""], ("trainer@sha256:ab",)),
        (["sha256:cd", "sha256:ab", None], ("sha256:ab", "sha256:cd")),
        ([None], ()),
    ],
    ids=["the same in every pod", "with a scheme, and one that starts", "a moved tag", "not yet"],
)
def test_images_are_those_that_the_nodes_report(reported: list[str | None], images: tuple[str, ...]) -> None:
    observed = ObservedObjects(JOB, TRAINJOB)
    pods = tuple(pod(f"pod-{number}", image) for number, image in enumerate(reported))
    observed.take(Change("synced", PODS, pods))
    assert observed.images == images
    observed.take(Change("deleted", PODS, pods))
    assert observed.images == images, "a pod that is gone trained as well"
