"""Calls are sent in order by another thread; what cannot be sent is given back, and nobody waits long."""

import threading
import time
from collections.abc import Callable

import pytest

from vl3.errors import ClusterError, ConfigError
from vl3.system.retry import Pauses
from vl3.tracking import outbox as module
from vl3.tracking.outbox import Call, Outbox


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSES", Pauses(first_seconds=0.001, longest_seconds=0.001))


def _calls(*names: str) -> list[Call]:
    return [Call("step", name, {}) for name in names]


def _sending(sent: list[str], broken: Callable[[str], bool] = lambda name: False) -> Callable[[Call], None]:
    def send(call: Call) -> None:
        if broken(call.name):
            raise ClusterError("the server is away")
        sent.append(call.name)

    return send


def test_calls_are_sent_in_order_before_it_closes() -> None:
    sent: list[str] = []
    box = Outbox(_sending(sent))
    for call in _calls("a", "b", "c"):
        box.put(call)
    assert box.close() == []
    assert sent == ["a", "b", "c"]


def test_a_call_that_fails_for_good_holds_up_no_other_and_is_given_back() -> None:
    sent: list[str] = []
    box = Outbox(_sending(sent, lambda name: name == "bad"))
    for call in _calls("a", "bad", "b"):
        box.put(call)
    assert box.close() == _calls("bad")
    assert sent == ["a", "b"]


def test_what_was_set_aside_is_sent_when_the_store_answers_again() -> None:
    sent: list[str] = []
    failures: list[str] = []

    def away_for_six_tries(name: str) -> bool:
        failures.append(name)
        return len(failures) <= 6

    box = Outbox(_sending(sent, away_for_six_tries))
    for call in _calls("a", "b", "c"):
        box.put(call)
    assert box.close() == []
    assert sent == ["c", "a", "b"]
    assert failures[:6] == ["a", "a", "a", "b", "b", "b"]


def test_a_call_that_can_never_be_sent_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(call: Call) -> None:
        raise ConfigError("the server refuses file://")

    box = Outbox(refuse)
    box.put(*_calls("register"))
    assert box.close() == []
    assert "register is left out of MLflow: the server refuses file://" in caplog.text


def test_a_store_that_hangs_costs_the_wait_and_everything_is_given_back() -> None:
    release = threading.Event()
    box = Outbox(lambda call: release.wait() and None, patience_seconds=0.05)
    for call in _calls("a", "b"):
        box.put(call)
    assert box.close() == _calls("a", "b")
    release.set()


def test_a_thread_that_died_gives_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def die(call: Call) -> None:
        raise ZeroDivisionError

    box = Outbox(die)
    for call in _calls("a", "b"):
        box.put(call)
    assert box.close() == _calls("a", "b")


def test_rows_that_come_again_are_dropped_when_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 3)
    release = threading.Event()
    box = Outbox(lambda call: release.wait() and None, patience_seconds=0.05)
    for call in _calls("a", "b", "c", "d", "e"):
        box.put(call, may_drop=True)
    box.put(*_calls("end"))
    assert [call.name for call in box.close()] == ["a", "b", "c", "end"]
    release.set()


def test_putting_never_waits() -> None:
    release = threading.Event()
    box = Outbox(lambda call: release.wait() and None, patience_seconds=0.0)
    started = time.monotonic()
    for call in _calls(*["x"] * 10_000):
        box.put(call)
    assert time.monotonic() - started < 5.0  # takes 20 ms; the store answers never
    box.close()
    release.set()
