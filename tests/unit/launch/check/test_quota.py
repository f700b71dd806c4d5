"""Kueue's quota arithmetic, with the examples of its documentation."""

from typing import Any

import pytest

from vl3.launch.check.quota import QuotaTree

GPU = "nvidia.com/gpu"


def owner(
    nominal: int | None, *, parent: str | None = None, field: str = "cohortName", **limits: str
) -> dict[str, Any]:
    groups = (
        []
        if nominal is None
        else [
            {
                "coveredResources": [GPU],
                "flavors": [{"name": "h200", "resources": [{"name": GPU, "nominalQuota": str(nominal), **limits}]}],
            }
        ]
    )
    return {"spec": {"resourceGroups": groups, **({field: parent} if parent else {})}}


def maximum(queues: dict[str, Any], cohorts: dict[str, Any] | None = None) -> int:
    return int(QuotaTree(queues, cohorts or {}).maximum("ours", "h200", GPU))


def test_alone_a_queue_has_its_own() -> None:
    assert maximum({"ours": owner(16)}) == 16


def test_a_flavour_without_quota_gives_nothing() -> None:
    assert QuotaTree({"ours": owner(16)}, {}).maximum("ours", "a100", GPU) == 0


@pytest.mark.parametrize("field", ["cohortName", "cohort"])
def test_a_cohort_lends_all_that_the_others_have(field: str) -> None:
    queues = {"ours": owner(16, parent="team", field=field), "theirs": owner(8, parent="team", field=field)}
    assert maximum(queues) == 24


def test_another_cohort_lends_nothing() -> None:
    assert maximum({"ours": owner(16, parent="team"), "theirs": owner(8, parent="other")}) == 16


def test_a_borrowing_limit_is_kept() -> None:
    queues = {"ours": owner(16, parent="team", borrowingLimit="4"), "theirs": owner(8, parent="team")}
    assert maximum(queues) == 20


def test_a_lending_limit_of_another_is_kept() -> None:
    queues = {"ours": owner(16, parent="team"), "theirs": owner(8, parent="team", lendingLimit="3")}
    assert maximum(queues) == 19


def test_our_own_lending_limit_takes_nothing_from_us() -> None:
    queues = {"ours": owner(16, parent="team", lendingLimit="0"), "theirs": owner(8, parent="team")}
    assert maximum(queues) == 24


def test_a_cohort_has_quota_of_its_own() -> None:
    assert maximum({"ours": owner(None, parent="team")}, {"team": owner(32)}) == 32


def test_cohorts_borrow_from_theirs_within_their_limit() -> None:
    queues = {"ours": owner(8, parent="team"), "theirs": owner(64, parent="company")}
    team = owner(0, parent="company", field="parentName", borrowingLimit="10")
    assert maximum(queues, {"team": team}) == 18
    assert maximum(queues, {"team": owner(None, parent="company", field="parentName")}) == 72


def test_a_circle_of_cohorts_ends() -> None:
    cohorts = {
        "one": owner(1, parent="two", field="parentName"),
        "two": owner(2, parent="one", field="parentName"),
    }
    assert maximum({"ours": owner(8, parent="one")}, cohorts) >= 8
