"""Following objects through every interruption, on a real HTTP server."""

import queue
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.api_server import ApiServer, Fault
from vl3.errors import ClusterError, ConfigError
from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.outages import LostTouchError
from vl3.launch.kube.resources import PODS
from vl3.launch.kube.watch import Change, ResourceWatcher
from vl3.system.retry import Pauses


class Inbox:
    """The changes that a watcher reported."""

    def __init__(self) -> None:
        self.put: queue.Queue[Change] = queue.Queue()

    def next(self, seconds: float = 300.0) -> tuple[str, list[str]]:
        change = self.put.get(timeout=seconds)
        return change.kind, [item["metadata"]["name"] for item in change.objects]

    def error(self) -> Exception:
        while True:
            change = self.put.get(timeout=300)
            if change.error is not None:
                return change.error


def pod(name: str) -> dict[str, object]:
    return {"metadata": {"name": name, "labels": {"job": "ours"}}}


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def watch(client: Client, limits: LaunchLimits, inbox: Inbox) -> Iterator[Callable[..., ResourceWatcher]]:
    started: list[ResourceWatcher] = []

    def start(limits: LaunchLimits = limits) -> ResourceWatcher:
        watcher = ResourceWatcher(client, PODS, {"labelSelector": "job=ours"}, inbox.put.put, limits)
        started.append(watcher)
        watcher.start()
        return watcher

    yield start
    for watcher in started:
        watcher.stop()
        watcher.join(3)
        assert not watcher.is_alive()


def test_watch_tells_what_there_is_and_every_change(
    server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher]
) -> None:
    server.put("pods", pod("a"))
    server.put("pods", {"metadata": {"name": "other", "labels": {"job": "theirs"}}})
    watch()
    assert inbox.next() == ("synced", ["a"])
    server.put("pods", pod("b"))
    server.put("pods", pod("a"))
    server.remove("pods", "b")
    assert [inbox.next() for _ in range(3)] == [("changed", ["b"]), ("changed", ["a"]), ("deleted", ["b"])]
    assert server.count("GET pods") == 1


def test_watch_goes_on_after_a_cut_without_listing(
    server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher]
) -> None:
    watch()
    assert inbox.next() == ("synced", [])
    server.wait_for("WATCH pods")
    server.cut()
    server.wait_for("WATCH pods", 2)
    server.put("pods", pod("a"))
    assert inbox.next() == ("changed", ["a"])
    assert server.count("GET pods") == 1


def test_watch_survives_a_restart_of_the_server(
    server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher]
) -> None:
    watch()
    assert inbox.next() == ("synced", [])
    server.wait_for("WATCH pods")
    server.stop()
    time.sleep(0.5)
    server.put("pods", pod("a"))
    server.start()
    assert inbox.next() == ("changed", ["a"])


def test_watch_lists_again_when_its_version_has_expired(
    server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher]
) -> None:
    server.put("pods", pod("a"))
    watch()
    assert inbox.next() == ("synced", ["a"])
    server.remove("pods", "a")
    assert inbox.next() == ("deleted", ["a"])
    server.put("pods", pod("b"))
    server.compact()
    server.cut()
    assert inbox.next() == ("changed", ["b"])
    assert inbox.next() == ("synced", ["b"])
    server.wait_for("WATCH pods", 2)
    server.faults.append(Fault("WATCH pods", body=b'{"type": "ERROR", "object": {"code": 410}}\n', status=200))
    server.cut()
    assert inbox.next() == ("synced", ["b"])


def test_bookmarks_move_the_version_on(server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher]) -> None:
    watch()
    assert inbox.next() == ("synced", [])
    server.wait_for("WATCH pods")
    server.bookmark()
    time.sleep(0.3)
    server.oldest_version = server._version
    server.cut()
    server.put("pods", pod("a"))
    assert inbox.next() == ("changed", ["a"])
    assert server.count("GET pods") == 1


def test_watch_waits_as_long_as_the_server_asks(
    server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher]
) -> None:
    server.faults.append(Fault("GET pods", status=429, headers={"Retry-After": "1"}))
    started = time.monotonic()
    watch()
    assert inbox.next() == ("synced", [])
    assert time.monotonic() - started >= 1


def test_a_server_that_hangs_up_at_once_is_not_asked_at_once(
    server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher], limits: LaunchLimits
) -> None:
    server.faults.extend(Fault("WATCH pods", status=200, body=b"") for _ in range(100))
    watch()
    assert inbox.next() == ("synced", [])
    time.sleep(1)
    assert server.count("WATCH pods") <= 12


def test_watch_gives_up_after_a_long_outage(
    server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher], limits: LaunchLimits
) -> None:
    server.stop()
    watch(LaunchLimits(api_outage_seconds=0.3, pauses=Pauses(first_seconds=0.05, longest_seconds=0.1)))
    error = inbox.error()
    server.start()
    assert isinstance(error, LostTouchError)
    assert isinstance(error.error, ClusterError)
    assert "has given no valid answer for" in str(error)
    assert str(server.kubeconfig) in str(error)
    assert "A job that was created keeps running" in str(error)


def test_watch_ends_with_one_message_when_it_is_not_allowed(
    server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher]
) -> None:
    message = 'pods is forbidden: User "eve" cannot list resource "pods" in API group "" in the namespace "team"'
    server.faults.append(Fault("GET pods", status=403, message=message))
    watch()
    error = inbox.error()
    assert isinstance(error, ConfigError)
    assert str(error).startswith("not allowed to list pods in namespace team: pods is forbidden")
    assert "Role vl3-launcher" in str(error)


def test_a_refusal_after_an_outage_is_not_believed_at_once(
    server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher]
) -> None:
    message = 'pods is forbidden: User "a" cannot list resource "pods" in API group ""'
    server.faults.append(Fault("GET pods", is_cut=True))
    server.faults.append(Fault("GET pods", status=403, message=message))
    server.put("pods", pod("a"))
    watch()
    assert inbox.next() == ("synced", ["a"])


def test_a_token_that_was_renewed_is_read_once(
    server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher]
) -> None:
    server.valid_tokens = {"second"}
    server.write_kubeconfig("second")
    watch()
    assert inbox.next() == ("synced", [])
    assert server.count("GET pods") == 2


def test_an_expired_token_is_one_message(
    server: ApiServer, inbox: Inbox, watch: Callable[..., ResourceWatcher]
) -> None:
    server.valid_tokens = {"second"}
    watch()
    error = inbox.error()
    assert isinstance(error, LostTouchError)
    assert isinstance(error.error, ConfigError)
    assert "rejects our credentials" in str(error)
    assert "the token has expired or was revoked. Log in again" in str(error)
    assert server.count("GET pods") == 2
