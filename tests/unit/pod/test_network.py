"""Where pods meet."""

import socket
import threading

import pytest

from vl3.errors import ClusterError, ConfigError
from vl3.pod import network
from vl3.pod.network import PodPlace, interface_towards, wait_for_master

VARIABLES = {
    "PET_NNODES": "2",
    "PET_NPROC_PER_NODE": "8",
    "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "job-node-0-0.job",
    "PET_MASTER_PORT": "29400",
}


def test_a_place_is_what_trainer_says() -> None:
    place = PodPlace.from_environment(VARIABLES)
    assert (place.num_processes, place.node_rank, place.master_host) == (16, 1, "job-node-0-0.job")
    assert place.torchrun_variables() == VARIABLES


def test_a_lone_pod_needs_no_name() -> None:
    place = PodPlace.from_environment(VARIABLES | {"PET_NNODES": "1", "PET_NODE_RANK": "0"})
    assert place.torchrun_variables()["PET_MASTER_ADDR"] == "127.0.0.1"
    assert wait_for_master(place, should_stop=lambda: False) == "127.0.0.1"
    assert interface_towards("127.0.0.1") == "lo"


def test_pods_without_a_master_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"PET_MASTER_ADDR is not set, so the pods cannot find each other"):
        PodPlace.from_environment(VARIABLES | {"PET_MASTER_ADDR": ""})
    with pytest.raises(ConfigError, match=r"PET_NODE_RANK='x' must be a number.*TrainJob on a runtime vl3-torch-"):
        PodPlace.from_environment(VARIABLES | {"PET_NODE_RANK": "x"})


def test_the_masters_name_may_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        if len(asked) < 3:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", port))]

    monkeypatch.setattr(network, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    place = PodPlace.from_environment(VARIABLES)
    assert wait_for_master(place, should_stop=lambda: False) == "10.1.2.3"
    assert asked == ["job-node-0-0.job"] * 3


def test_a_name_that_never_comes_is_the_clusters_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MASTER_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(network, "_POLL_SECONDS", 0.01)
    place = PodPlace.from_environment(VARIABLES | {"PET_MASTER_ADDR": "nobody.invalid"})
    with pytest.raises(ClusterError, match=r"nobody\.invalid: the cluster's DNS has no address .* after 0\.05 s"):
        wait_for_master(place, should_stop=lambda: False)


def test_waiting_ends_when_the_pod_is_taken_away() -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    place = PodPlace.from_environment(VARIABLES | {"PET_MASTER_ADDR": "nobody.invalid"})
    assert wait_for_master(place, should_stop=stop.is_set) is None


def test_the_interface_of_this_machines_own_address() -> None:
    """The master looks for the interface of its own address, which the kernel reaches through loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no route but loopback")
        own = probe.getsockname()[0]
    name = interface_towards("192.0.2.1")
    assert name not in (None, "lo")
    assert interface_towards(own) == name
