"""Atomic writes and what their failures say."""

import errno
import os
from pathlib import Path

import pytest

from vl3.errors import StorageError
from vl3.system.files import atomic_write_json, atomic_write_text, read_record, require_space, storage_errors


def test_a_write_replaces_the_file_and_leaves_no_temporary(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "f", "one")
    atomic_write_text(tmp_path / "f", "two")
    assert (tmp_path / "f").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_full_disk_keeps_the_former_file(tmp_path: Path, monkeypatch) -> None:
    atomic_write_json(tmp_path / "f", {"a": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"f: the disk is full \(12 bytes were to be written\)"):
        atomic_write_text(tmp_path / "f", "twelve bytes")
    assert (tmp_path / "f").read_text() == '{\n "a": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, "no permission to write"),
        (errno.EROFS, "no permission to write"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_operating_system_errors_are_explained(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(StorageError, match=message), storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_space_is_asked_for_where_the_folder_will_be(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "yet", 1, purpose="for the run")
    with pytest.raises(StorageError, match=r"MB are free and 1000000000000 MB are needed for the run"):
        require_space(tmp_path / "not" / "yet", 10**18, purpose="for the run")


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "[" * 60_000, '{"a": "\xff'])
def test_what_is_no_record_is_an_empty_one(tmp_path: Path, content: str) -> None:
    (tmp_path / "f").write_bytes(content.encode("latin-1"))
    assert read_record(tmp_path / "f") == {}


def test_a_record_is_read_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    assert read_record(tmp_path / "f") == {}
    atomic_write_json(tmp_path / "f", {"a": 1})
    assert read_record(tmp_path / "f") == {"a": 1}
