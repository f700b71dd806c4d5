"""Data folders that others put into a bucket."""

from pathlib import Path

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.unit.store.conftest import connection_to
from vl3.errors import DataError, StorageError
from vl3.store.folders import fetch_folder, folder_digest_s3
from vl3.store.objects import open_s3
from vl3.store.s3.connection import S3Connection


@pytest.fixture
def uploaded(faulty: S3Connection, root_uri: str, tmp_path: Path) -> str:
    """Annotations and a picture, and the empty object with which some programs mark a folder."""
    store = open_s3(root_uri, faulty)
    (tmp_path / "file").write_text("{}\n")
    store.put_file(tmp_path / "file", "annotations/train.jsonl")
    store.put_file(tmp_path / "file", "media/a b.png")
    (tmp_path / "file").write_text("")
    store.client.call("x", lambda minio, _: minio._put_object(store.bucket, f"{store.prefix}/media/", b"", {}))
    return root_uri


def test_a_folder_is_copied_once_and_again_when_it_changes(
    uploaded: str, faulty: S3Connection, proxy: FaultProxy, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    folder = fetch_folder(uploaded, cache=cache, s3=faulty)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == ["annotations/train.jsonl", "media/a b.png"]
    assert (folder / "annotations" / "train.jsonl").read_text() == "{}\n"
    with proxy.fault():
        assert fetch_folder(uploaded, cache=cache, s3=faulty) == folder
        assert proxy.count("GET") == 1
    before = folder_digest_s3(uploaded, faulty)
    assert folder.name == f"folder-{before}"
    (tmp_path / "file").write_text("{} \n")
    open_s3(uploaded, faulty).put_file(tmp_path / "file", "annotations/train.jsonl")
    assert folder_digest_s3(uploaded, faulty) != before
    changed = fetch_folder(uploaded, cache=cache, s3=faulty)
    assert (changed / "annotations" / "train.jsonl").read_text() == "{} \n"


def test_a_local_folder_is_itself(tmp_path: Path) -> None:
    assert fetch_folder(tmp_path.as_uri()) == tmp_path


def test_an_empty_place_is_reported(s3: S3Connection, root_uri: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{root_uri}: contains no objects. Correct the URI, or upload annotations"):
        fetch_folder(root_uri, cache=tmp_path, s3=s3)


def test_a_bucket_that_denies_is_reported(weed, quick, tmp_path: Path, root_uri: str) -> None:
    with pytest.raises(StorageError, match=r"access denied for the account"):
        fetch_folder(root_uri, cache=tmp_path, s3=connection_to(weed.endpoint, "nobody"))


@pytest.mark.parametrize("key", ["../escaped", "a/../../escaped", "a\x01b", "/absolute"])
def test_a_key_that_leaves_the_folder_is_refused(
    key: str, uploaded: str, faulty: S3Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SeaweedFS normalises such keys on put and other servers keep them, so the test puts one into the listing."""
    from vl3.store.s3.store import S3Store

    items = dict(open_s3(uploaded, faulty).items())
    listed = [(key, items["media/a b.png"])]
    monkeypatch.setattr(S3Store, "items", lambda *_: iter(listed))
    with pytest.raises(DataError, match=r"the key .* A copy of the object would be outside the local folder"):
        fetch_folder(uploaded, cache=tmp_path / "cache", s3=faulty)
    assert not (tmp_path / "escaped").exists()


def test_an_object_that_is_also_a_folder_is_refused(uploaded: str, faulty: S3Connection, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    open_s3(uploaded, faulty).put_file(tmp_path / "file", "media")
    with pytest.raises(DataError, match=r"media: is both an object and the folder of 'media/a b.png'. Rename one"):
        fetch_folder(uploaded, cache=tmp_path / "cache", s3=faulty)
