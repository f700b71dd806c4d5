"""Who may talk to whom under the rendered network policies, worked out without a network.

The pod network of the kind node made here does not enforce policies, so traffic would prove nothing. Blocks of
addresses match what is outside of the cluster; whether they match pods, too, differs between networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pod:
    """One end of a connection, inside of the cluster."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Address:
    """One end of a connection, outside of it."""

    ip: str


End = Pod | Address


def is_allowed(policies: Sequence[Policy], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies let `source` open a connection to `target`."""
    return _passes(policies, source, target, port, protocol, "Egress") and _passes(
        policies, target, source, port, protocol, "Ingress"
    )


def _passes(policies: Sequence[Policy], own: End, other: End, port: int, protocol: str, direction: str) -> bool:
    if isinstance(own, Address):
        return True
    selecting = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == own.namespace
        and direction in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], own.labels)
    ]
    if not selecting:
        return True
    rules, peers = direction.lower(), "from" if direction == "Ingress" else "to"
    return any(
        _has_port(rule.get("ports"), port, protocol) and _has_peer(rule.get(peers), other, own.namespace)
        for spec in selecting
        for rule in spec.get(rules) or []
    )


def _has_port(ports: Sequence[Mapping[str, Any]] | None, port: int, protocol: str) -> bool:
    return not ports or any(entry["port"] == port and entry.get("protocol", "TCP") == protocol for entry in ports)


def _has_peer(peers: Sequence[Mapping[str, Any]] | None, other: End, namespace: str) -> bool:
    return not peers or any(_is_peer(peer, other, namespace) for peer in peers)


def _is_peer(peer: Mapping[str, Any], other: End, namespace: str) -> bool:
    if isinstance(other, Address):
        block = peer.get("ipBlock")
        return block is not None and _lies_in(other.ip, block["cidr"]) and not _excepted(other.ip, block)
    if "ipBlock" in peer:
        return False
    in_namespace = (
        _selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
        if "namespaceSelector" in peer
        else other.namespace == namespace
    )
    return in_namespace and _selects(peer.get("podSelector", {}), other.labels)


def _excepted(ip: str, block: Mapping[str, Any]) -> bool:
    return any(_lies_in(ip, cidr) for cidr in block.get("except", []))


def _lies_in(ip: str, cidr: str) -> bool:
    return ip_address(ip) in ip_network(cidr)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "Exists", expression
        if expression["key"] not in labels:
            return False
    return True
