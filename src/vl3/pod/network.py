"""The rendezvous of training pods: variables of Trainer's torch policy, the master's name, the interface to it."""

import fcntl
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vl3.errors import ClusterError, ConfigError

LOOPBACK = "127.0.0.1"
MASTER_TIMEOUT_SECONDS = 1800.0
"""Time for the name of the first pod to appear in the cluster's DNS: it may still wait for a node (LaunchLimits)."""
_POLL_SECONDS = 1.0
_SIOCGIFADDR = 0x8915


@dataclass(frozen=True, kw_only=True, slots=True)
class PodPlace:
    """Which pod of the stage this is, and the address of their rendezvous."""

    nodes: int
    """Pods of the stage."""
    processes_per_node: int
    """Training processes of each pod."""
    node_rank: int
    """Number of this pod."""
    master_host: str
    """Name of the first pod; the loopback address if it is the only one."""
    master_port: int
    """TCP port of the rendezvous on the first pod."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read the variables that Trainer's torch policy sets.

        Raises:
            ConfigError: one is missing or not a number.
        """
        numbers = {}
        for name in ("PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_PORT"):
            text = environ.get(name, "")
            if not text.isdecimal():
                raise ConfigError(
                    f"{name}={text!r} must be a number. Kubeflow Trainer's torch policy sets it: launch the pod with a "
                    "TrainJob on a runtime vl3-torch-<pool>, with trainer.numProcPerNode set."
                )
            numbers[name] = int(text)
        nodes = numbers["PET_NNODES"]
        host = environ.get("PET_MASTER_ADDR", "")
        if nodes > 1 and not host:
            raise ConfigError(
                "PET_MASTER_ADDR is not set, so the pods cannot find each other. Launch them with a TrainJob."
            )
        return cls(
            nodes=nodes,
            processes_per_node=numbers["PET_NPROC_PER_NODE"],
            node_rank=numbers["PET_NODE_RANK"],
            master_host=host if nodes > 1 else LOOPBACK,
            master_port=numbers["PET_MASTER_PORT"],
        )

    @property
    def num_processes(self) -> int:
        """World size of the stage."""
        return self.nodes * self.processes_per_node

    def torchrun_variables(self) -> dict[str, str]:
        """The variables that torchrun reads as its options; a single pod gets an address that needs no DNS."""
        return {
            "PET_NNODES": str(self.nodes),
            "PET_NPROC_PER_NODE": str(self.processes_per_node),
            "PET_NODE_RANK": str(self.node_rank),
            "PET_MASTER_ADDR": self.master_host,
            "PET_MASTER_PORT": str(self.master_port),
        }


def wait_for_master(place: PodPlace, *, should_stop: Callable[[], bool]) -> str | None:
    """Wait until the first pod's name has an address; returns it, or None if asked to stop.

    A headless service gets its names only after its pods have addresses, so a name may be unknown for a while.

    Raises:
        ClusterError: it has none after MASTER_TIMEOUT_SECONDS.
    """
    deadline = time.monotonic() + MASTER_TIMEOUT_SECONDS
    while not should_stop():
        try:
            return str(socket.getaddrinfo(place.master_host, place.master_port, type=socket.SOCK_STREAM)[0][4][0])
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ClusterError(
                    f"{place.master_host}: the cluster's DNS has no address for the first pod of the stage after "
                    f"{MASTER_TIMEOUT_SECONDS:g} s ({error}), so the processes cannot find each other. Check that the "
                    "pod runs, that its headless service exists and that network policies allow pods to query the "
                    "DNS; then start the run again: it resumes from its last checkpoint."
                ) from error
            time.sleep(_POLL_SECONDS)
    return None


def interface_towards(address: str) -> str | None:
    """Name of the network interface from which this pod reaches an address; None if not known."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
            probe.connect((address, 9))
            own = ipaddress.ip_address(probe.getsockname()[0])
    except (OSError, ValueError):
        return None
    addresses = _addresses_v6() if own.version == 6 else _addresses_v4()
    return next((name for name, there in addresses if there == own), None)


def _addresses_v4() -> list[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    found: list[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", os.fsencode(name)[:15]))
            except OSError:  # an interface without an address
                continue
            found.append((name, ipaddress.ip_address(answer[20:24])))
    return found


def _addresses_v6() -> list[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    path = Path("/proc/net/if_inet6")
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [(row[5], ipaddress.ip_address(bytes.fromhex(row[0]))) for row in rows]
