"""Media paths stay inside the data folder."""

from pathlib import Path

import pytest

from vl3.data.sample import media
from vl3.data.sample.media import (
    FileRange,
    StoreRange,
    media_bytes,
    media_chunks,
    media_digest,
    open_media,
    read_media,
    resolve_media_path,
)
from vl3.data.sample.problems import ProblemKind, SampleProblem
from vl3.errors import StorageError
from vl3.store.objects import FileStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "a.png").write_bytes(b"pixels")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "data"


def test_a_relative_path_is_found(root):
    path = resolve_media_path(root, "images/a.png", "train.jsonl:1")
    assert read_media(path, "images/a.png", "train.jsonl:1") == b"pixels"


@pytest.mark.parametrize("path", ["../secret.txt", "images/../../secret.txt", "/etc/passwd"])
def test_paths_out_of_the_folder_are_refused(root, path):
    with pytest.raises(SampleProblem, match="leads outside the data folder") as caught:
        resolve_media_path(root, path, "train.jsonl:5")
    assert caught.value.kind is ProblemKind.OUTSIDE_FOLDER
    assert str(caught.value).startswith(f"train.jsonl:5: {path!r}")


def test_links_out_of_the_folder_are_refused(root):
    (root / "images" / "link.png").symlink_to(root.parent / "secret.txt")
    with pytest.raises(SampleProblem, match="leads outside"):
        resolve_media_path(root, "images/link.png", "x")


def test_links_inside_the_folder_are_followed(root):
    (root / "b.png").symlink_to(root / "images" / "a.png")
    assert resolve_media_path(root, "b.png", "x").name == "a.png"


@pytest.mark.parametrize(
    ("path", "what"), [("images/none.png", "does not exist"), ("images", "is a folder"), ("a\0b", "not a usable path")]
)
def test_what_is_no_file_is_missing(root, path, what):
    with pytest.raises(SampleProblem, match=what) as caught:
        resolve_media_path(root, path, "x")
    assert caught.value.kind is ProblemKind.MISSING_FILE


@pytest.fixture
def parts(tmp_path: Path) -> list[bytes | FileRange | StoreRange]:
    """The same 5,000 bytes in memory, in a file and in a store."""
    data = bytes(index * 7 % 251 for index in range(5000))
    (tmp_path / "shard").write_bytes(b"before" + data + b"after")
    place = {"offset_bytes": 6, "length_bytes": len(data)}
    return [
        data,
        FileRange(path=tmp_path / "shard", **place),
        StoreRange(store=FileStore(tmp_path), key="shard", **place),
    ]


@pytest.mark.parametrize("read_ahead", [16, 1000, 1 << 20])
def test_parts_of_files_and_objects_are_read_as_bytes_are(parts, read_ahead, monkeypatch):
    monkeypatch.setattr(media, "READ_AHEAD_BYTES", read_ahead)
    data = parts[0]
    for part in parts:
        assert media_bytes(part) == 5000
        assert b"".join(media_chunks(part)) == data
        assert media_digest(part) == media_digest(data)
        with open_media(part) as file:
            for offset, whence, length in (
                (4990, 0, 100),
                (-10, 2, 5),
                (-3, 1, 8),
                (0, 0, 3),
                (6000, 0, 1),
                (17, 0, 2000),
            ):
                at = file.seek(offset, whence)
                assert file.read(length) == data[at : at + length]


def test_an_object_that_is_shorter_than_its_place_says_is_an_error_of_the_store(tmp_path):
    (tmp_path / "shard").write_bytes(bytes(100))
    place = StoreRange(store=FileStore(tmp_path), key="shard", offset_bytes=50, length_bytes=60)
    with open_media(place) as file, pytest.raises(StorageError, match="shard"):
        file.read()
