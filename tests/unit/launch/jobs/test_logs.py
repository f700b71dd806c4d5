"""Logs of training pods: followed over several streams, and never a reason to fail."""

import queue

from tests.support.api_server import ApiServer
from vl3.launch.jobs.logs import LogFollower, LogLine, last_lines
from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits

T = "2026-11-23T14:00:0"


def follow(client: Client, limits: LaunchLimits) -> tuple[LogFollower, "queue.Queue[LogLine]"]:
    lines: queue.Queue[LogLine] = queue.Queue()
    follower = LogFollower(client, "p", lines.put, limits)
    follower.start()
    return follower, lines


def test_follower_goes_on_after_a_stream_that_ended(server: ApiServer, client: Client, limits: LaunchLimits) -> None:
    server.logs["p"] = [[f"{T}1Z a"], [f"{T}1Z a", f"{T}2Z b"]]
    follower, lines = follow(client, limits)
    assert [lines.get(timeout=300).text for _ in range(2)] == ["a", "b"]
    follower.finish(5)
    assert not follower.is_alive()
    assert lines.empty()
    assert ("LOG pods", {"timestamps": "true", "container": "node", "sinceTime": f"{T}1Z", "follow": "true"}) in (
        server.bodies
    )


def test_a_log_that_cannot_be_read_ends_with_its_pod(server: ApiServer, client: Client, limits: LaunchLimits) -> None:
    follower, lines = follow(client, limits)
    server.wait_for("LOG pods")
    follower.finish(5)
    assert not follower.is_alive()
    assert lines.empty()


def test_last_lines_are_those_of_pods_that_have_a_log(server: ApiServer, client: Client, limits: LaunchLimits) -> None:
    def pod(name: str, phase: str) -> dict[str, object]:
        return {"metadata": {"name": name}, "spec": {}, "status": {"phase": phase}}

    server.logs["a"] = [[f"{T}1Z one", f'{T}1Z vl3-event {{"type": "x"}}', f"{T}1Z two"]]
    pods = [pod("waiting", "Pending"), pod("a", "Failed"), pod("kubelet-gone", "Failed")]
    assert last_lines(client, pods, limits) == {"a": ["one", "two"]}
    assert server.count("LOG pods") == 2
