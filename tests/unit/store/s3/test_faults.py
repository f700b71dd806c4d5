"""A network that breaks: transient errors are retried, others reported, and no wrong byte gets through."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fault_proxy import Fault, FaultProxy
from tests.unit.store.conftest import PART_BYTES
from vl3.errors import StorageError
from vl3.store.objects import open_s3
from vl3.store.s3 import client as s3_client
from vl3.store.s3.connection import S3Connection
from vl3.store.s3.store import S3Store

SMALL, LARGE = os.urandom(300_000), os.urandom(2 * PART_BYTES + 999)

GET_FAULTS = {
    "reset": Fault("reset", "GET", times=2),
    "cut body": Fault("cut", "GET", value=100_000, times=2),
    "shortened body": Fault("shorten", "GET", value=70_000, times=2),
    "flipped bit": Fault("flip", "GET", value=5_000),
    "silence": Fault("silence", "GET", value=3),
    "slow down": Fault("refuse", "GET", value="503 SlowDown", times=3),
    "too many requests": Fault("refuse", "GET", value="429 TooManyRequests"),
    "gateway's page": Fault("refuse", "GET", value="502", times=2),
    "internal error": Fault("refuse", "GET", value="500 InternalError"),
}
PUT_FAULTS = {
    "reset": Fault("reset", "PUT", times=2),
    "lost answer": Fault("lose_answer", "PUT", times=2),
    "flipped bit": Fault("flip_sent", "PUT", times=2),
    "slow down": Fault("refuse", "PUT", value="503 SlowDown", times=3),
    "silence": Fault("silence", "PUT", value=3),
    "start lost": Fault("lose_answer", r"POST .*\?uploads", times=1),
    "end lost": Fault("lose_answer", r"POST .*\?uploadId", times=1),
    "end refused": Fault("refuse", r"POST .*\?uploadId", value="503 ServiceUnavailable", times=2),
}


@pytest.fixture
def store(faulty: S3Connection, root_uri: str) -> S3Store:
    return open_s3(root_uri, faulty)


@pytest.fixture
def put(store: S3Store, tmp_path: Path) -> Callable[[bytes], None]:
    def put_data(data: bytes) -> None:
        (tmp_path / "source").write_bytes(data)
        store.put_file(tmp_path / "source", "x")

    return put_data


@pytest.mark.parametrize("name", list(GET_FAULTS))
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_download_survives(name: str, data: bytes, store: S3Store, put, proxy: FaultProxy, tmp_path: Path) -> None:
    put(data)
    fault = _again(GET_FAULTS[name])
    store = _impatient(store) if name == "silence" else store
    with proxy.fault(fault):
        store.get_file("x", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert fault.hits == fault.times
    assert {path.name for path in tmp_path.iterdir()} == {"source", "copy"}


@pytest.mark.parametrize("name", list(PUT_FAULTS))
def test_an_upload_survives(name: str, store: S3Store, proxy: FaultProxy, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(LARGE)
    fault = _again(PUT_FAULTS[name])
    with proxy.fault(fault):
        (_impatient(store) if name == "silence" else store).put_file(tmp_path / "source", "x")
    assert fault.hits == fault.times
    assert store.read("x") == LARGE
    orphans = 1 if name == "start lost" else 0  # an upload whose name was lost is left to the lifecycle rule
    assert store.abort_uploads(older_than_seconds=0) == orphans


def test_a_broken_body_is_taken_up_where_it_broke(store: S3Store, put, proxy: FaultProxy, tmp_path: Path) -> None:
    put(SMALL)
    with proxy.fault(Fault("cut", "GET", value=200_000)):
        assert store.read("x") == SMALL
        assert proxy.count("GET") == 2
    assert store.client.num_retries == 1


def test_a_body_that_is_always_wrong_is_refused_with_both_digests(
    store: S3Store, put, proxy: FaultProxy, tmp_path: Path
) -> None:
    put(SMALL)
    for action, value in (("flip", 7), ("flip", 299_999)):
        with (
            proxy.fault(Fault(action, "GET", value=value, times=99)),
            pytest.raises(
                StorageError,
                match=rf"{store.uri}/x: is damaged: 300000 bytes with sha256 \w+ arrived 3 times, expected 300000 b",
            ),
        ):
            store.get_file("x", tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
    with (
        proxy.fault(Fault("flip", "GET", value=7, times=99)),
        pytest.raises(
            StorageError, match=r"x: is damaged: sha256 \w+ arrived 3 times, expected sha256 \w+\. The object"
        ),
    ):
        store.read("x")


def test_an_upload_that_fails_for_good_leaves_no_parts(store: S3Store, put, proxy: FaultProxy) -> None:
    refused = Fault("refuse", "PUT", value="503 SlowDown", times=99, after=1)
    with (
        proxy.fault(refused),
        pytest.raises(StorageError, match=r"x: the S3 server at .* failed \(503 SlowDown SlowDown .*; 8 tries in"),
    ):
        put(LARGE)
    assert proxy.count("DELETE .*uploadId") == 1
    assert (store.exists("x"), store.abort_uploads(older_than_seconds=0)) == (False, 0)


def test_a_server_that_asks_for_time_gets_it(store: S3Store, put, proxy: FaultProxy) -> None:
    put(SMALL)
    started = time.monotonic()
    with proxy.fault(Fault("refuse", "GET", value="503 SlowDown 1")):
        assert store.exists("x")
    assert time.monotonic() - started >= 1.0


def test_a_server_that_answered_before_is_waited_for_longer(
    store: S3Store, put, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "MAX_TRIES", 40)
    with proxy.fault(Fault("reset", times=99)), pytest.raises(StorageError, match=r"does not answer .* 8 tries in"):
        store.exists("x")
    put(SMALL)
    with proxy.fault(Fault("reset", times=20)):
        assert store.read("x") == SMALL
    assert store.client.num_retries == 7 + 20


@pytest.mark.parametrize(("action", "value"), [("silence", 9), ("drip", 0.4)])
def test_a_deadline_ends_what_never_ends(
    action: str, value: float, put, proxy: FaultProxy, faulty: S3Connection, root_uri: str, tmp_path: Path
) -> None:
    put(SMALL)
    hurried = open_s3(root_uri, replace(faulty, deadline_seconds=1.5, request_timeout_seconds=1.0))
    started = time.monotonic()
    with (
        proxy.fault(Fault(action, "GET", value=value, times=99)),
        pytest.raises(StorageError, match=r"/x: the (S3 server|transfer from) .*; \d tr(y|ies) in \d\.\d s\)"),
    ):
        hurried.get_file("x", tmp_path / "copy")
    assert time.monotonic() - started < 8
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("answer", ["403 AccessDenied", "404 NoSuchBucket", "403 SignatureDoesNotMatch", "403"])
def test_a_final_answer_is_not_asked_for_twice(answer: str, store: S3Store, proxy: FaultProxy) -> None:
    with proxy.fault(Fault("refuse", value=answer, times=99)), pytest.raises(StorageError, match=f"{store.uri}/x: "):
        store.exists("x")
    assert len(proxy.requests) == 1


def test_a_listing_goes_on(store: S3Store, put, proxy: FaultProxy) -> None:
    put(SMALL)
    with proxy.fault(Fault("cut", "GET .*list-type", value=80, times=2), Fault("refuse", "GET", value="503 SlowDown")):
        assert store.sizes() == {"x": len(SMALL)}
        assert proxy.count("list-type") == 4


def test_an_object_that_is_replaced_while_it_is_read_comes_whole(
    store: S3Store, put, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(LARGE)
    other = os.urandom(len(LARGE))
    (tmp_path / "other").write_bytes(other)
    calls = []
    original = os.pwrite

    def replace_meanwhile(*arguments):
        if not calls:
            calls.append(1)
            open_s3(store.uri, store.client.connection).put_file(tmp_path / "other", "x")
        return original(*arguments)

    monkeypatch.setattr(os, "pwrite", replace_meanwhile)
    store.get_file("x", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == other


def _impatient(store: S3Store) -> S3Store:
    """The same place, with a client that does not wait long for a silent server."""
    return open_s3(store.uri, replace(store.client.connection, request_timeout_seconds=1.0))


def _again(fault: Fault) -> Fault:
    """A fresh copy: parametrised values are shared by all cases."""
    return Fault(fault.action, fault.match, fault.times, fault.after, fault.value)
