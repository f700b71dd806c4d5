"""Folders that appear complete or not at all."""

import os
import tempfile
from pathlib import Path

import pytest

from vl3.errors import StorageError
from vl3.system.folders import own_folder, own_temporary_folder, remove, scratch_folder, whole_folder


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out"
    (tmp_path / "new" / "out.partial" / "old").mkdir(parents=True)  # what a killed attempt left
    with whole_folder(target) as folder:
        (folder / "f").write_text("x")
        assert not target.exists()
        with (
            pytest.raises(StorageError, match=r"out.partial is being written by process \d+ on"),
            whole_folder(target),
        ):
            pass
    assert [path.name for path in target.iterdir()] == ["f"]
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_an_error_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"), whole_folder(tmp_path / "out") as folder:
        (folder / "missing" / "f").write_text("x")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_replaced_and_another_one_left(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as folder:
        (folder / "f").write_text("x")
    with pytest.raises(StorageError, match="out exists and is not empty"), whole_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "f").read_text() == "x"
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file exists and is not empty"), whole_folder(tmp_path / "file"):
        pass


def test_a_scratch_folder_stands_beside_what_it_becomes_and_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out"
    with scratch_folder(target, "weights") as folder:
        assert folder.parent == target.parent
        assert folder.name.startswith(".weights-")
        (folder / "f").touch()
    assert list(target.parent.iterdir()) == []
    with scratch_folder(target, "weights") as folder:
        (folder / "f").touch()
        folder.rename(target)
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    with pytest.raises(KeyError), scratch_folder(None, "weights") as folder:
        raise KeyError
    assert not folder.exists()


def test_removing_takes_folders_files_and_links_but_not_what_they_point_to(tmp_path: Path) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("folder", "file", "link", "nothing"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_link_in_the_place_of_a_folder_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "work").symlink_to(tmp_path / "precious")
    for _ in range(2):
        (own_folder(tmp_path / "work") / "file").touch()
    assert not (tmp_path / "work").is_symlink()
    assert list((tmp_path / "precious").iterdir()) == []


def test_the_temporary_folder_of_a_user_is_only_that_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = own_temporary_folder("vl3-work")
    assert (folder, folder.stat().st_mode & 0o777) == (tmp_path / f"vl3-work-{os.getuid()}", 0o700)
    assert own_temporary_folder("vl3-work") == folder
    folder.rmdir()
    (tmp_path / "precious").mkdir()
    folder.symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match="the folder is a link or belongs to another user"):
        own_temporary_folder("vl3-work")
    folder.unlink()
    folder.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    (tmp_path / "vl3-work-4711").mkdir()
    with pytest.raises(StorageError, match="vl3-work-4711: the folder is a link or belongs to another user"):
        own_temporary_folder("vl3-work")
