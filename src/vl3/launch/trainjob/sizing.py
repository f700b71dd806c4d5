"""How many nodes the next attempt of a stage gets, where its placement leaves a choice (`min_nodes`).

An estimate from what the queues say now; Kueue decides. Of each flavour a queue can have what is left of its own quota
and its limit of borrowing, and no more than what is left in its cohort:

    queue a: 16 GPUs, 8 in use, borrowing limit 8     queue b: 16 GPUs, 14 in use
    a can have min(16 + 8 - 8, 32 - 22) = 10 GPUs now: one node of 8 for a stage of 1 to 4
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from vl3.config.placement import PlacementConfig
from vl3.launch.kube.client import ApiError, Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import Object, parse_quantity
from vl3.launch.kube.outages import until_answered
from vl3.launch.kube.resources import CLUSTER_QUEUES, LOCAL_QUEUES
from vl3.launch.trainjob.spec import pod_resources

log = logging.getLogger("vl3.launch")


def affordable(placement: PlacementConfig, counts: Sequence[int], client: Client, limits: LaunchLimits) -> int | None:
    """The largest of some numbers of nodes for which there is quota now; None if there is for none.

    Where the queues cannot be read, the largest: Kueue then says how long the job waits.

    Args:
        placement: what each pod requests, and its queue.
        counts: the numbers of nodes to choose from, the largest first.
        client: of the API server.
        limits: for outages of the server.
    """
    try:
        local = until_answered(lambda: client.get(LOCAL_QUEUES, placement.queue), client, limits)
        queues = until_answered(lambda: client.list(CLUSTER_QUEUES), client, limits).get("items") or ()
    except ApiError as error:
        log.warning("the quota cannot be read, so the stage asks for %d nodes: %s", counts[0], error)
        return counts[0]
    by_name = {queue["metadata"]["name"]: queue for queue in queues}
    own = by_name.get(local.get("spec", {}).get("clusterQueue", ""))
    return counts[0] if own is None else largest_that_fits(placement, counts, own, by_name)


def largest_that_fits(
    placement: PlacementConfig, counts: Sequence[int], own: Object, queues: Mapping[str, Object]
) -> int | None:
    """The largest number of nodes that a queue has quota for now; None if it has for none.

    Kueue takes one flavour for all resources of a group, so one flavour has to have room for all of them.

    Args:
        placement: what each pod requests.
        counts: the numbers to choose from, the largest first.
        own: the ClusterQueue.
        queues: all ClusterQueues by name, for the cohort.
    """
    each = {name: parse_quantity(amount) for name, amount in pod_resources(placement).items()}
    for count in counts:
        if all(_has_room(group, each, count, own, queues) for group in own["spec"].get("resourceGroups") or ()):
            return count
    return None


def _has_room(
    group: Object, each: Mapping[str, Decimal], count: int, own: Object, queues: Mapping[str, Object]
) -> bool:
    names = [name for name in group["coveredResources"] if each.get(name)]
    return not names or any(
        all(each[name] * count <= _left(own, queues, flavor["name"], name) for name in names)
        for flavor in group["flavors"]
    )


def _left(own: Object, queues: Mapping[str, Object], flavor: str, resource: str) -> Decimal:
    """What the queue can still have of a flavour's resource."""
    nominal, limit = _quota(own, flavor, resource)
    used = _used(own, flavor, resource)
    cohort = _cohort(own)
    if not cohort:
        return nominal - used
    members = [queue for queue in queues.values() if _cohort(queue) == cohort]
    shared = sum((_quota(one, flavor, resource)[0] - _used(one, flavor, resource) for one in members), Decimal(0))
    return shared if limit is None else min(shared, nominal + limit - used)


def _quota(queue: Object, flavor: str, resource: str) -> tuple[Decimal, Decimal | None]:
    """Nominal quota and limit of borrowing."""
    for one in _named(_flavors(queue["spec"].get("resourceGroups") or ()), flavor):
        for found in _named(one.get("resources") or (), resource):
            limit = found.get("borrowingLimit")
            return parse_quantity(found.get("nominalQuota", 0)), None if limit is None else parse_quantity(limit)
    return Decimal(0), Decimal(0)


def _used(queue: Object, flavor: str, resource: str) -> Decimal:
    """What jobs have reserved of it; that includes what the queue has borrowed."""
    for one in _named((queue.get("status") or {}).get("flavorsReservation") or (), flavor):
        for found in _named(one.get("resources") or (), resource):
            return parse_quantity(found.get("total", 0))
    return Decimal(0)


def _flavors(groups: Iterable[Object]) -> Iterable[Any]:
    return (flavor for group in groups for flavor in group["flavors"])


def _named(items: Iterable[Any], name: str) -> Iterable[Any]:
    return (item for item in items if item.get("name") == name)


def _cohort(queue: Object) -> str:
    """Kueue's v1beta1 and v1beta2 name the field differently."""
    return queue["spec"].get("cohortName") or queue["spec"].get("cohort") or ""
