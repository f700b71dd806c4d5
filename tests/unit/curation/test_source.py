"""Parts of the input: lines, shards, hostile texts and names."""

import io
import tarfile
from pathlib import Path

import pytest

from tests.support.curation import file_of, photo, write_lines, write_shard
from vl3.curation.source import MAX_TEXT_CHARACTERS, clean_text, find_parts, read_part
from vl3.errors import DataError
from vl3.system.uris import file_uri


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\x00cat\n on\ud800 a mat", "a cat on a mat"),
        (None, ""),
        (17, ""),
        ("\u202eevil\u202c", "evil"),
        ("x" * 10_000, "x" * MAX_TEXT_CHARACTERS),
    ],
)
def test_hostile_texts_become_plain_ones(text: object, clean: str) -> None:
    assert clean_text(text) == clean


def test_lines_are_divided_and_held_out_lines_are_left_out(tmp_path: Path) -> None:
    data = file_of(photo(1))
    write_lines(tmp_path, [(f"{n}.png", data, f"text {n}") for n in range(300)])
    write_lines(tmp_path, [("held.png", data, "held out")], split="heldout")
    parts = find_parts(file_uri(tmp_path), 128)
    assert [part.name for part in parts] == ["lines-000000", "lines-000001", "lines-000002"]
    rows = [row for part in parts for row in read_part(part, max_bytes=1 << 20)]
    assert len(rows) == 300
    assert {row.text for row in rows} == {f"text {n}" for n in range(300)}
    wanted = frozenset([rows[5].key])
    assert [row.key for row in read_part(parts[0], wanted, max_bytes=1 << 20)] == [rows[5].key]


def test_shards_give_images_with_texts_and_name_what_is_too_large(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "0.tar", [("a.png", b"abc", "a text"), ("b.jpg", b"x" * 100, ""), ("c.txt", b"", "no image")]
    )
    (part,) = find_parts(file_uri(tmp_path), 128)
    first, second = read_part(part, max_bytes=50)
    assert (first.key, first.text, first.data) == ("a.png", "a text", b"abc")
    assert second.data is None
    assert second.problem == "the file has 100 bytes, more than max_image_bytes=50"


def test_a_path_in_a_shard_is_only_a_name(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", [("../../etc/passwd.png", b"abc", "")])
    (part,) = find_parts(file_uri(tmp_path), 128)
    (row,) = read_part(part, max_bytes=50)
    assert row.data == b"abc"
    assert not (tmp_path.parent / "etc").exists()


def test_links_in_a_shard_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        plain = tarfile.TarInfo("b.png")
        plain.size = 1
        tar.addfile(plain, io.BytesIO(b"x"))
    (part,) = find_parts(file_uri(tmp_path), 128)
    assert [row.key for row in read_part(part, max_bytes=50)] == ["b.png"]


def test_a_damaged_shard_is_refused_by_name(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", [(f"{n}.png", b"x" * 3000, "") for n in range(5)])
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[:5000])
    (part,) = find_parts(file_uri(tmp_path), 128)
    with pytest.raises(DataError, match=r"0\.tar: the shard is damaged"):
        list(read_part(part, max_bytes=1 << 20))


def test_names_of_shards_never_leave_their_folder(tmp_path: Path) -> None:
    write_shard(tmp_path / "a b$é.tar", [("a.png", b"x", "")])
    (part,) = find_parts(file_uri(tmp_path), 128)
    assert part.name == "shard-000000-a-b--"
