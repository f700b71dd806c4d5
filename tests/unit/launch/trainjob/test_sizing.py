"""How many nodes a queue has quota for, of the numbers with which a stage may run."""

from dataclasses import replace
from typing import Any

import pytest

from vl3.launch.trainjob.sizing import largest_that_fits
from vl3.recipes.catalog import get_recipe

VIDEO = replace(get_recipe("vl3_2b").placements["video"], nodes=4, min_nodes=1)


def queue(name: str, gpus: str, used: str, *, limit: str | None = None, cohort: str = "") -> dict[str, Any]:
    quota = {"name": "nvidia.com/gpu", "nominalQuota": gpus} | ({"borrowingLimit": limit} if limit else {})
    plenty = [{"name": "cpu", "nominalQuota": "1k"}, {"name": "memory", "nominalQuota": "64Ti"}]
    flavor = {"name": "h200", "resources": [*plenty, quota]}
    group = {"coveredResources": ["cpu", "memory", "nvidia.com/gpu"], "flavors": [flavor]}
    usage = {"name": "h200", "resources": [{"name": "nvidia.com/gpu", "total": used}]}
    spec = {"resourceGroups": [group]} | ({"cohortName": cohort} if cohort else {})
    return {"metadata": {"name": name}, "spec": spec, "status": {"flavorsReservation": [usage]}}


def fits(own: dict[str, Any], *others: dict[str, Any]) -> int | None:
    queues = {one["metadata"]["name"]: one for one in (own, *others)}
    return largest_that_fits(VIDEO, [4, 2, 1], own, queues)


@pytest.mark.parametrize(("used", "expected"), [("0", 4), ("8", 2), ("16", 2), ("17", 1), ("24", 1), ("25", None)])
def test_what_is_left_of_the_quota_decides(used: str, expected: int | None) -> None:
    assert fits(queue("a", "32", used)) == expected


def test_a_cohort_lends_up_to_the_limit() -> None:
    other = queue("b", "16", "14", cohort="all")
    assert fits(queue("a", "16", "8", limit="8", cohort="all"), other) == 1  # 10 GPUs
    assert fits(queue("a", "16", "0", limit="8", cohort="all"), other) == 2  # 18 GPUs
    assert fits(queue("a", "16", "0", limit="8", cohort="all"), queue("b", "16", "0", cohort="all")) == 2  # 24, not 32
    assert fits(queue("a", "16", "0", cohort="all"), queue("b", "16", "0", cohort="all")) == 4
    assert fits(queue("a", "16", "0", cohort="all"), queue("b", "16", "16", cohort="other")) == 2


def test_a_device_without_quota_of_its_own_does_not_count() -> None:
    own = queue("a", "32", "0")
    rdma = replace(VIDEO, fabric=replace(VIDEO.fabric, devices={"rdma/hca": 8}))
    assert largest_that_fits(rdma, [4], own, {"a": own}) == 4
