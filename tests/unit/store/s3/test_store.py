"""Objects on a real S3 server: what works, and the message of each refusal."""

import hashlib
import os
import socket
from datetime import timedelta
from pathlib import Path

import minio.api
import pytest

from tests.support.weed_server import BUCKET, WeedServer
from tests.unit.store.conftest import PART_BYTES, connection_to
from vl3.errors import ConfigError, StorageError
from vl3.store.objects import open_store
from vl3.store.s3.connection import S3Connection


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of three parts, the last one short."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(2 * PART_BYTES + 12345))
    return path


def test_a_prefix_is_a_store(s3: S3Connection, root_uri: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"0123456789")
    store = open_store(root_uri, s3)
    store.put_file(tmp_path / "source", "a/b")
    store.put_file(tmp_path / "source", "a/c")
    assert store.list("a/") == ["a/b", "a/c"]
    assert store.list() == ["a/b", "a/c"]
    assert store.read_range("a/b", 2, 3) == b"234"
    assert store.read("a/b") == b"0123456789"
    store.get_file("a/b", tmp_path / "copy" / "b")
    assert (tmp_path / "copy" / "b").read_bytes() == b"0123456789"
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["b"]
    store.delete("a/b")
    store.delete("a/b")
    assert (store.exists("a/b"), store.exists("a/c"), store.read("a/b")) == (False, True, None)


def test_large_files_go_in_parts_and_come_back_whole(
    s3: S3Connection, root_uri: str, large: Path, tmp_path: Path
) -> None:
    store = open_store(root_uri, s3)
    store.put_file(large, "large")
    store.get_file("large", tmp_path / "copy")
    assert _digest(tmp_path / "copy") == _digest(large)
    middle = store.read_range("large", PART_BYTES - 5, 10)
    assert middle == large.read_bytes()[PART_BYTES - 5 : PART_BYTES + 5]
    assert store.abort_uploads(older_than_seconds=0) == 0


def test_empty_objects_and_odd_names(s3: S3Connection, root_uri: str, tmp_path: Path) -> None:
    names = ["leer", "a folder/ü + #?%20&=;'.txt", "…/ 日本"]
    (tmp_path / "empty").touch()
    store = open_store(root_uri, s3)
    for name in names:
        store.put_file(tmp_path / "empty", name)
        store.get_file(name, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b""
        assert (store.exists(name), store.read(name)) == (True, b"")
    assert store.list() == sorted(names)


def test_a_short_object_is_refused(s3: S3Connection, root_uri: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123")
    store = open_store(root_uri, s3)
    store.put_file(tmp_path / "x", "x")
    for offset, found in ((2, 2), (9, 0)):
        with pytest.raises(StorageError, match=rf"x: asked for the bytes {offset} to {offset + 5}, got {found}"):
            store.read_range("x", offset, 5)


def test_a_file_that_changes_while_it_is_sent_is_refused(
    s3: S3Connection, root_uri: str, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl3.store.s3.transfer.file_sha256", lambda _: "0" * 64)
    store = open_store(root_uri, s3)
    with pytest.raises(StorageError, match=r"large: changed while it was uploaded \(sha256 \w+, expected 0{64}\)"):
        store.put_file(large, "large")
    assert (store.exists("large"), store.abort_uploads(older_than_seconds=0)) == (False, 0)


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/x", "a//b", "", "a\nb", "a/./b", "x" * 1025])
def test_a_key_stays_below_its_root(key: str, s3: S3Connection, root_uri: str, tmp_path: Path) -> None:
    for uri in (root_uri, tmp_path.as_uri()):
        with pytest.raises(ConfigError, match=r"the key .* Use plain relative paths: folder/file"):
            open_store(uri, s3).get_file(key, tmp_path / "y")


REFUSALS = {
    "unknown bucket": (
        "admin",
        None,
        "s3://no-such-bucket/x",
        r"the bucket 'no-such-bucket' does not exist at http://",
    ),
    "bucket denies": (
        "nobody",
        None,
        f"s3://{BUCKET}/x",
        rf"access denied for the account .* in the bucket '{BUCKET}'",
    ),
    "wrong secret": ("admin", "wrong", f"s3://{BUCKET}/x", "the secret of the account from AWS_ACCESS_KEY_ID is wrong"),
    "unknown account": ("ghost", None, f"s3://{BUCKET}/x", "the account from AWS_ACCESS_KEY_ID is unknown at http://"),
}


@pytest.mark.parametrize("name", list(REFUSALS))
def test_a_refusal_names_place_reason_and_remedy(name: str, weed: WeedServer, quick: None, tmp_path: Path) -> None:
    account, secret, uri, message = REFUSALS[name]
    store = open_store(uri, connection_to(weed.endpoint, account, secret))
    (tmp_path / "f").write_text("x")
    actions = {
        "exists": lambda: store.exists("k"),
        "get": lambda: store.get_file("k", tmp_path / "y"),
        "put": lambda: store.put_file(tmp_path / "f", "k"),
        "list": lambda: store.list(),
    }
    if name == "unknown bucket":
        del actions["put"]  # this server makes it for an administrator
    for action in actions.values():
        with pytest.raises(StorageError, match=message) as caught:
            action()
        assert str(caught.value).startswith(uri)
        assert "admin-secret" not in str(caught.value)
        assert store.client.num_retries == 0
    assert not (tmp_path / "y").exists()


def test_a_reader_may_read_but_not_write(s3: S3Connection, weed: WeedServer, root_uri: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    open_store(root_uri, s3).put_file(tmp_path / "f", "f")
    reader = open_store(root_uri, connection_to(weed.endpoint, "reader"))
    assert (reader.read("f"), reader.list()) == (b"x", ["f"])
    with pytest.raises(
        StorageError, match=r"g: access denied for the account from AWS_ACCESS_KEY_ID. Allow it to read"
    ):
        reader.put_file(tmp_path / "f", "g")


def test_a_wrong_clock_is_named(s3: S3Connection, root_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = minio.api.time.utcnow
    monkeypatch.setattr(minio.api.time, "utcnow", lambda: now() - timedelta(hours=2))
    with pytest.raises(StorageError, match=r"the clock of this machine .* Correct the clock \(NTP\)"):
        open_store(root_uri, s3).exists("x")


def test_no_server_is_named(quick: None) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(
        StorageError, match=r"s3://some-bucket/x/k: the S3 server at http://127.0.0.1:\d+ does not answer .* 8 tries in"
    ) as caught:
        open_store("s3://some-bucket/x", connection_to(endpoint)).exists("k")
    assert "Connection refused" in str(caught.value)
    assert "Check AWS_ENDPOINT_URL" in str(caught.value)


def test_a_full_disk_leaves_nothing(
    s3: S3Connection, root_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(root_uri, s3)
    (tmp_path / "f").write_bytes(b"x" * 1000)
    store.put_file(tmp_path / "f", "f")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match=r"copy: the disk is full"):
        store.get_file("f", tmp_path / "out" / "copy")
    assert not list((tmp_path / "out").iterdir())
    assert store.client.num_retries == 0


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
