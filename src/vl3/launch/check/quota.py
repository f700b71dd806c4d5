"""The most of a flavour that a queue can ever get: Kueue's own arithmetic over cluster queues and cohorts.

Every queue and cohort is a node of a tree. A node's subtree has its own nominal quota and what its children lend (all
of theirs, or up to their lending limit). A queue can get what it keeps and what is in the cohort above it, up to its
borrowing limit. Queues a and b in a cohort that has no quota itself:

    a: nominal 8, borrowingLimit 4    b: nominal 16, lendingLimit 10    cohort: 8 + 10 = 18
    a can have min(18, 8 + 4) = 12, of which 4 are borrowed
    b keeps 16 - 10 = 6 and can have 6 + 18 = 24, of which 8 are borrowed
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from vl3.launch.kube.objects import parse_quantity

Amounts = Mapping[str, Decimal]
"""Amounts by resource name: cpu in cores, memory in bytes, nvidia.com/gpu as a number of GPUs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    """The quota of a queue or cohort for one resource of one flavour."""

    nominal: Decimal
    borrowing_limit: Decimal | None
    lending_limit: Decimal | None


_NOTHING = Quota(nominal=Decimal(0), borrowing_limit=None, lending_limit=None)


@dataclass(kw_only=True, slots=True)
class _Node:
    quotas: dict[tuple[str, str], Quota]
    parent: str | None
    children: list["_Node"] = field(default_factory=list)


class QuotaTree:
    """Cluster queues and cohorts with their quotas."""

    def __init__(self, cluster_queues: Mapping[str, Any], cohorts: Mapping[str, Any]) -> None:
        self._queues = {
            name: _Node(quotas=_quotas(queue), parent=cohort_of(queue)) for name, queue in cluster_queues.items()
        }
        self._cohorts = {
            name: _Node(quotas=_quotas(cohort), parent=cohort["spec"].get("parentName") or None)
            for name, cohort in cohorts.items()
        }
        for node in [*self._queues.values(), *self._cohorts.values()]:
            if node.parent:  # a cohort exists as soon as a queue names it, even without an object
                self._cohorts.setdefault(node.parent, _Node(quotas={}, parent=None)).children.append(node)

    def nominal(self, queue: str, flavor: str, resource: str) -> Decimal:
        """The queue's own quota."""
        return self._queues[queue].quotas.get((flavor, resource), _NOTHING).nominal

    def maximum(self, queue: str, flavor: str, resource: str) -> Decimal:
        """The most that the queue can have, while no other queue uses anything."""
        return self._potential(self._queues[queue], (flavor, resource), frozenset())

    def _potential(self, node: _Node, key: tuple[str, str], passed: frozenset[str]) -> Decimal:
        own = self._subtree(node, key, frozenset())
        if not node.parent or node.parent in passed:  # Kueue stops the queues of cyclic cohorts
            return own
        above = self._potential(self._cohorts[node.parent], key, passed | {node.parent})
        limit = node.quotas.get(key, _NOTHING).borrowing_limit
        available = _kept(node, key, own) + above
        return available if limit is None else min(available, own + limit)

    def _subtree(self, node: _Node, key: tuple[str, str], passed: frozenset[int]) -> Decimal:
        total = node.quotas.get(key, _NOTHING).nominal
        if id(node) in passed:
            return total
        for child in node.children:
            share = self._subtree(child, key, passed | {id(node)})
            total += share - _kept(child, key, share)
        return total


def cohort_of(cluster_queue: Mapping[str, Any]) -> str | None:
    """The cohort that a queue belongs to; v1beta1 and v1beta2 name the field differently."""
    spec = cluster_queue["spec"]
    return spec.get("cohortName") or spec.get("cohort") or None


def _kept(node: _Node, key: tuple[str, str], own: Decimal) -> Decimal:
    """How much of its own amount a node never lends: 6 of 16 with a lending limit of 10, nothing without a limit."""
    limit = node.quotas.get(key, _NOTHING).lending_limit
    return Decimal(0) if limit is None else max(Decimal(0), own - limit)


def _quotas(owner: Mapping[str, Any]) -> dict[tuple[str, str], Quota]:
    return {
        (flavor["name"], resource["name"]): Quota(
            nominal=parse_quantity(resource.get("nominalQuota", 0)),
            borrowing_limit=_optional(resource.get("borrowingLimit")),
            lending_limit=_optional(resource.get("lendingLimit")),
        )
        for group in owner["spec"].get("resourceGroups", ())
        for flavor in group["flavors"]
        for resource in flavor["resources"]
    }


def _optional(text: str | None) -> Decimal | None:
    return None if text is None else parse_quantity(text)
