"""The store interface over a folder, and URIs."""

import hashlib
import os
from pathlib import Path

import pytest

from vl3.errors import ConfigError, StorageError
from vl3.store.objects import open_store
from vl3.store.uris import join_uri, split_s3
from vl3.system.uris import file_path


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"0123456789")
    store = open_store((tmp_path / "root").as_uri())
    store.put_file(tmp_path / "source", "a/b")
    store.put_file(tmp_path / "source", "a/c")
    assert store.list("a/") == ["a/b", "a/c"]
    assert store.read_range("a/b", 2, 3) == b"234"
    store.get_file("a/b", tmp_path / "copy" / "b")
    assert (tmp_path / "copy" / "b").read_bytes() == b"0123456789"
    store.delete("a/b")
    assert (store.exists("a/b"), store.exists("a/c")) == (False, True)


def test_pieces_of_memory_become_one_object_with_its_digest(tmp_path: Path) -> None:
    store = open_store((tmp_path / "root").as_uri())
    entry = store.write("a/b", [b"0123", memoryview(b"xx456789")[2:]])
    assert store.read("a/b") == b"0123456789"
    assert (entry.size_bytes, entry.sha256) == (10, hashlib.sha256(b"0123456789").hexdigest())
    assert store.list() == ["a/b"], "nothing else is left"


@pytest.mark.parametrize("thing", ["a link", "a broken link", "a pipe", "a huge file"])
def test_what_no_store_wrote_is_no_object_and_is_replaced(thing: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"dear")
    path = tmp_path / "root" / "record.json"
    path.parent.mkdir()
    if thing == "a pipe":
        os.mkfifo(path)
    elif thing == "a huge file":
        path.touch()
        os.truncate(path, 2**40)
    else:
        path.symlink_to(tmp_path / ("precious" if thing == "a link" else "gone"))
    store = open_store(path.parent.as_uri())
    assert store.read("record.json") is None
    (tmp_path / "new").write_bytes(b"whole")
    store.put_file(tmp_path / "new", "record.json")
    assert store.read("record.json") == b"whole"
    assert (tmp_path / "precious").read_bytes() == b"dear"


def test_a_short_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123")
    with pytest.raises(StorageError, match="asked for the bytes 2 to 7, got 2"):
        open_store(tmp_path.as_uri()).read_range("x", 2, 5)


def test_a_missing_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gone: the object is missing"):
        open_store(tmp_path.as_uri()).get_file("gone", tmp_path / "y")


@pytest.mark.parametrize("uri", ["runs/x", "http://host/x", "ftp://x"])
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="Use file:///absolute/folder or s3://bucket/key"):
        open_store(uri)


def test_uris_keep_odd_paths(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with #, ? and %20"
    assert file_path(join_uri(folder.as_uri(), "x")) == folder / "x"
    assert file_path(join_uri(folder.as_uri(), "a#1?%20", "y")) == folder / "a#1?%20" / "y"
    assert join_uri("s3://bucket/a", "b#1?%20") == "s3://bucket/a/b#1?%20"  # nothing in a key is special
    assert split_s3("s3://bucket/a/b/") == ("bucket", "a/b")
    with pytest.raises(ConfigError, match="names no bucket"):
        split_s3("s3:///a")
