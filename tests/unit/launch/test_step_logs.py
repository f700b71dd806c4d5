"""A step's log from its pods: waited for, followed through breaks and retries, and what is said meanwhile."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.api_server import ApiServer, Fault
from tests.support.launches import client, server  # noqa: F401  # fixtures
from tests.unit.launch.test_step_pods import NO_NODE, step_pod
from vl3.errors import ClusterError, ConfigError
from vl3.launch import step_logs
from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.step_logs import NoPodError, follow_step, read_step
from vl3.system.retry import Pauses

T = "2026-11-28T19:00:0"
TASK = "train-stage"


def state(kind: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "main", "state": {kind: more}}, {"name": "wait", "state": {"running": {}}}]


WAITING: dict[str, Any] = {"phase": "Pending", "conditions": [NO_NODE]}
RUNNING: dict[str, Any] = {"phase": "Running", "containerStatuses": state("running")}
SUCCEEDED: dict[str, Any] = {"phase": "Succeeded", "containerStatuses": state("terminated", exitCode=0)}
FAILED: dict[str, Any] = {"phase": "Failed", "containerStatuses": state("terminated", exitCode=1)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_logs, "_PAUSES", Pauses(first_seconds=0.02, longest_seconds=0.05))


@pytest.fixture
def notes() -> list[str]:
    return []


def test_the_newest_attempt_is_read(server: ApiServer, client: Client, notes: list[str]) -> None:  # noqa: F811
    server.put("pods", step_pod("first", created=f"{T}1Z", **FAILED))
    server.put("pods", step_pod("second", created=f"{T}2Z", **SUCCEEDED))
    server.logs |= {"first": [[f"{T}1Z old"]], "second": [[f"{T}2Z a", f"{T}3Z b"]]}
    assert list(read_step(client, "r", TASK, notes.append)) == ["a", "b"]
    assert notes == []
    assert server.bodies[-1] == ("LOG pods", {"timestamps": "true", "container": "main"})


def test_the_attempt_before_is_read_while_the_newest_waits(
    server: ApiServer,  # noqa: F811
    client: Client,  # noqa: F811
    notes: list[str],
) -> None:
    server.put("pods", step_pod("first", created=f"{T}1Z", **FAILED))
    server.put("pods", step_pod("second", created=f"{T}2Z", **WAITING))
    server.logs["first"] = [[f"{T}1Z old"]]
    assert list(read_step(client, "r", TASK, notes.append)) == ["old"]
    assert notes == [
        "this is the log of the attempt before: pod second of train-stage has not started: it finds no node: 0/1 "
        "nodes: cpu."
    ]


def test_reading_says_why_there_is_nothing(server: ApiServer, client: Client, notes: list[str]) -> None:  # noqa: F811
    with pytest.raises(NoPodError):
        list(read_step(client, "r", TASK, notes.append))
    server.put("pods", step_pod("p", **WAITING))
    with pytest.raises(ClusterError, match=r"pod p of train-stage has not started: it finds no node: .* waits for it"):
        list(read_step(client, "r", TASK, notes.append))


def test_a_broken_read_is_continued(server: ApiServer, client: Client, notes: list[str]) -> None:  # noqa: F811
    server.put("pods", step_pod("p", **SUCCEEDED))
    server.logs["p"] = [[f"{T}1Z a", "cut"], [f"{T}1Z a", f"{T}2Z b"]]
    server.faults += [Fault("LOG pods", status=503), Fault("LOG pods", is_cut=True)]
    assert list(read_step(client, "r", TASK, notes.append)) == ["a", "b"]


def test_a_pod_that_goes_before_its_log_is_read_is_no_pod(
    server: ApiServer,  # noqa: F811
    client: Client,  # noqa: F811
    notes: list[str],
) -> None:
    server.put("pods", step_pod("p", **SUCCEEDED))
    gone = b'{"message": "pods \\"p\\" not found", "reason": "NotFound", "details": {"name": "p"}}'
    server.faults.append(Fault("LOG pods", status=404, body=gone))
    with pytest.raises(NoPodError):
        list(read_step(client, "r", TASK, notes.append))


def test_no_right_to_read_logs_is_an_error(server: ApiServer, client: Client, notes: list[str]) -> None:  # noqa: F811
    server.put("pods", step_pod("p", **SUCCEEDED))
    said = 'pods "p" is forbidden: User "u" cannot get resource "pods/log" in API group "" in the namespace "team"'
    server.faults.append(Fault("LOG pods", status=403, message=said))
    with pytest.raises(ConfigError, match=r"not allowed to read the log of pods p in namespace team: .*pods/log"):
        list(read_step(client, "r", TASK, notes.append))


def test_an_api_server_that_stays_away_is_an_error(
    server: ApiServer,  # noqa: F811
    client: Client,  # noqa: F811
    notes: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step_logs, "_LIMITS", LaunchLimits(api_outage_seconds=0.0))
    server.put("pods", step_pod("p", **SUCCEEDED))
    with pytest.raises(ClusterError, match=r"has given no valid answer for 0 s: .*no route to the kubelet"):
        list(read_step(client, "r", TASK, notes.append))


class Following(threading.Thread):
    """A command that follows: its lines and notes as they come."""

    def __init__(self, client: Client, is_ended: Callable[[], bool] = lambda: False) -> None:  # noqa: F811
        super().__init__(daemon=True)
        self.seen: list[str] = []
        self.error: Exception | None = None
        self._news = threading.Condition()
        self._lines = follow_step(client, "r", TASK, lambda text: self._see(f"note: {text}"), is_ended)
        self.start()

    def run(self) -> None:
        try:
            for line in self._lines:
                self._see(line)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def _see(self, text: str) -> None:
        with self._news:
            self.seen.append(text)
            self._news.notify_all()

    def wait_for(self, text: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: any(one.startswith(text) for one in self.seen), 60), (text, self.seen)

    def ended(self) -> list[str]:
        self.join(60)
        assert not self.is_alive(), self.seen
        assert self.error is None, self.error
        return self.seen


def test_following_waits_says_why_and_goes_on_with_a_retry(server: ApiServer, client: Client) -> None:  # noqa: F811
    following = Following(client)
    following.wait_for("note: waiting for a pod of train-stage in namespace team of http://127.0.0.1:")
    server.put("pods", step_pod("first", created=f"{T}1Z", **WAITING))
    following.wait_for("note: pod first of train-stage has not started: it finds no node: 0/1 nodes: cpu.")
    server.logs["first"] = [[f"{T}1Z a"], [f"{T}1Z a", f"{T}2Z b", "cut"], [f"{T}2Z b", f"{T}3Z c"]]
    server.put("pods", step_pod("first", created=f"{T}1Z", **RUNNING))
    following.wait_for("c")
    server.put("pods", step_pod("first", created=f"{T}1Z", **FAILED))
    following.wait_for("note: waiting for another attempt or the end of train-stage")
    server.logs["second"] = [[f"{T}5Z d"]]
    server.put("pods", step_pod("second", created=f"{T}4Z", **SUCCEEDED))
    assert [line for line in following.ended() if not line.startswith("note:")] == ["a", "b", "c", "d"]
    assert "note: the next attempt of train-stage is pod second" in following.seen
    assert len(following.seen) == len(set(following.seen)), "nothing is said twice"


def test_following_ends_with_a_task_that_failed(server: ApiServer, client: Client) -> None:  # noqa: F811
    server.put("pods", step_pod("p", **FAILED))
    server.logs["p"] = [[f"{T}1Z a"]]
    assert Following(client, lambda: True).ended() == ["a"]


def test_a_pod_that_goes_while_it_is_followed_is_told_and_no_older_one_follows(
    server: ApiServer,  # noqa: F811
    client: Client,  # noqa: F811
) -> None:
    ended = threading.Event()
    server.put("pods", step_pod("older", created=f"{T}1Z", **FAILED))
    server.put("pods", step_pod("newer", created=f"{T}2Z", **RUNNING))
    server.logs |= {"older": [[f"{T}1Z old"]], "newer": [[f"{T}2Z a"]]}
    following = Following(client, ended.is_set)
    following.wait_for("a")
    server.remove("pods", "newer")
    following.wait_for("note: pod newer is gone; its last lines may be missing here")
    ended.set()
    assert "old" not in following.ended()


def test_a_pod_that_never_started_is_told(server: ApiServer, client: Client) -> None:  # noqa: F811
    server.put("pods", step_pod("p", phase="Failed", reason="Evicted", message="The node had no memory."))
    assert Following(client, lambda: True).ended() == [
        "note: pod p ended before its container started: its node ended it: Evicted: The node had no memory."
    ]


def test_following_a_task_without_pods_that_has_ended_is_no_pod(client: Client) -> None:  # noqa: F811
    lines: Iterator[str] = follow_step(client, "r", TASK, print, lambda: True)
    with pytest.raises(NoPodError):
        next(lines)
