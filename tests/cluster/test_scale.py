"""Twenty launches contend for ten simulated nodes in four pools; `benchmarks.cluster.scale` does the same with 200."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cluster.load import plan_of, run_load
from benchmarks.cluster.pools import Pool, Pools
from tests.support.cluster.reach import Cluster
from tests.support.cluster.simulated import seed_of

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]
_LAUNCHES = 20


@pytest.fixture
def pools(cluster: Cluster) -> Iterator[Pools]:
    sizes = {"few-a": 4, "few-b": 3, "few-c": 2, "few-d": 1}
    with Pools(cluster, "few", [Pool(name, nodes) for name, nodes in sizes.items()]) as made:
        yield made


def test_contending_launches_end_in_order_and_never_hold_more_gpus_than_exist(
    pools: Pools, cluster: Cluster, tmp_path: Path
) -> None:
    plan = plan_of(pools.pools, _LAUNCHES, seed_of("load"), per_second=5.0)
    outcome = run_load(pools, plan, tmp_path, cluster.environment, parts=1)
    assert outcome.failed == []
    assert outcome.overbooked == []
    assert outcome.created == _LAUNCHES
    assert outcome.leftovers == []
    assert outcome.refused > 0, "the launches did not contend"
    # Quota that is freed just after a workload was tried goes to the next one; the queue's next pass corrects that.
    assert [each for each in outcome.inversions if each.seconds is None or each.seconds > 15] == []
    assert max(outcome.to_noticed) < 2
    assert sum(outcome.requests.values()) < 30 * _LAUNCHES
