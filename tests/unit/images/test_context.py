"""The stream that Docker builds from."""

import io
import os
import tarfile
from pathlib import Path

from images.context import write_context


def context_of(folder: Path) -> bytes:
    stream = io.BytesIO()
    write_context(stream, {"Dockerfile": folder / "Dockerfile", "libraries": folder / "tree"})
    return stream.getvalue()


def make_parts(folder: Path, names: list[str]) -> Path:
    (folder / "tree" / "opt").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    for name in names:
        (folder / "tree" / "opt" / name).write_text(name)
    (folder / "tree" / "opt" / "link").symlink_to("a.py")
    return folder


def test_equal_files_give_equal_bytes_whenever_and_in_whatever_order_made(tmp_path: Path) -> None:
    first = make_parts(tmp_path / "first", ["a.py", "b.py"])
    second = make_parts(tmp_path / "second", ["b.py", "a.py"])
    os.utime(second / "tree" / "opt" / "a.py", (1, 1))
    (second / "tree" / "opt" / "b.py").chmod(0o600)
    assert context_of(first) == context_of(second)


def test_a_context_keeps_programs_and_links_and_names_no_owner(tmp_path: Path) -> None:
    folder = make_parts(tmp_path, ["a.py"])
    (folder / "tree" / "opt" / "run").write_text("#!/bin/sh\n")
    (folder / "tree" / "opt" / "run").chmod(0o744)
    with tarfile.open(fileobj=io.BytesIO(context_of(folder))) as archive:
        members = {member.name: member for member in archive}
    assert list(members) == [
        "Dockerfile", "libraries", "libraries/opt", "libraries/opt/a.py", "libraries/opt/link", "libraries/opt/run"
    ]  # fmt: skip
    assert members["libraries/opt/run"].mode == 0o755
    assert members["libraries/opt/a.py"].mode == 0o644
    assert members["libraries/opt/link"].linkname == "a.py"
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in members.values()} == {
        (0, 0, "", 315_532_800)
    }
