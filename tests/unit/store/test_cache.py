"""Local copies: filled once and completely, and made again when they were changed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.documents import changed
from vl3.errors import StorageError
from vl3.store.cache import cached_folder


def fill(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "f").write_text("content")


def test_a_copy_is_made_once(tmp_path: Path) -> None:
    calls = []
    for _ in range(2):
        folder = cached_folder("name", lambda path: (calls.append(1), fill(path)), tmp_path)
    assert (folder / "sub" / "f").read_text() == "content"
    assert calls == [1]


CHANGES = {
    "another text": lambda folder: (folder / "sub" / "f").write_text("CONTENT"),
    "a file more": lambda folder: (folder / "g").touch(),
    "a file less": lambda folder: (folder / "sub" / "f").unlink(),
    "a link": lambda folder: (folder / "link").symlink_to("/etc/hostname"),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_changed_copy_is_made_again(name: str, tmp_path: Path) -> None:
    folder = cached_folder("name", fill, tmp_path)
    CHANGES[name](folder)
    cached_folder("name", fill, tmp_path)
    assert [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))] == ["sub", "sub/f"]
    assert (folder / "sub" / "f").read_text() == "content"


def test_a_failed_fill_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise StorageError("no more")

    with pytest.raises(StorageError, match="no more"):
        cached_folder("name", fail, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".name.lock"]


KILLED = """
import sys, time
from pathlib import Path
from vl3.store.cache import cached_folder
def fill(folder):
    (folder / "half").touch()
    print("filling", flush=True)
    time.sleep(60)
cached_folder("name", fill, Path(sys.argv[1]))
"""


def test_a_killed_filler_is_followed_by_the_next(tmp_path: Path) -> None:
    filler = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert filler.stdout.readline() == b"filling\n"
    filler.send_signal(signal.SIGKILL)
    filler.wait(10)
    started = time.monotonic()
    folder = cached_folder("name", fill, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["sub"]
    assert time.monotonic() - started < 5


def test_a_cache_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(StorageError, match=r"vl3-cache-4711: the folder is a link or belongs to another user"):
        cached_folder("name", fill)


def test_a_cache_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match=r"cache: the folder is a link"):
        cached_folder("name", fill, tmp_path / "cache")
    assert list((tmp_path / "precious").iterdir()) == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed({"sub/f": [7, 1_700_000_000_000_000_000]}))
def test_a_seal_of_any_content_costs_a_copy_at_most(data: bytes, tmp_path: Path) -> None:
    folder = cached_folder("name", fill, tmp_path)
    (tmp_path / ".name.sealed").write_bytes(data)
    assert (cached_folder("name", fill, tmp_path) / "sub" / "f").read_text() == "content"
    assert sorted(path.name for path in folder.iterdir()) == ["sub"]
