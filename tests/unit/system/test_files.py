"""Atomic writes and what their failures say."""

import errno
import os
from pathlib import Path

import pytest

from vl3.errors import StorageError
from vl3.system.files import (
    atomic_write_json,
    atomic_write_text,
    open_to_append,
    read_plain,
    read_record,
    require_space,
    storage_errors,
)


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


def _pipe(path: Path) -> None:
    os.mkfifo(path)


NO_FILES = {
    "a link": lambda path: path.symlink_to(path.with_name("elsewhere")),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": _pipe,
    "a folder": lambda path: path.mkdir(),
    "too large": lambda path: (path.touch(), os.truncate(path, 2**40)),
}


@pytest.mark.parametrize("name", list(NO_FILES))
def test_only_a_plain_file_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text('{"a": 1}')
    NO_FILES[name](tmp_path / "record.json")
    with pytest.raises(OSError, match=r"record\.json"):
        read_plain(tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == {}


def test_what_is_appended_stays_in_the_run(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("dear")
    (tmp_path / "a.log").symlink_to(tmp_path / "precious")
    for _ in range(2):
        with os.fdopen(open_to_append(tmp_path / "a.log"), "ab") as file:
            file.write(b"line\n")
    assert (tmp_path / "precious").read_text() == "dear"
    assert (tmp_path / "a.log").read_text() == "line\nline\n"
    (tmp_path / "sub").mkdir()
    with pytest.raises(StorageError, match=r"sub: cannot be written"):
        open_to_append(tmp_path / "sub")
