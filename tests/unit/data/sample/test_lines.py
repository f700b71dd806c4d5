"""Lines of annotations as JSON objects: each costs itself alone, with its kind and reason."""

import gzip
import json
import os
import random
import tracemalloc
from pathlib import Path

import pyarrow
import pytest

from vl3.data.sample.lines import MAX_DEPTH, MAX_LINE_BYTES, parse_line, read_lines
from vl3.data.sample.problems import SampleProblem
from vl3.errors import DataError

SURROGATE = r'"\ud800"'


def refused(line: str | bytes) -> tuple[str, str]:
    with pytest.raises(SampleProblem) as caught:
        parse_line(line, "train.jsonl:1")
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) <= 1000
    return caught.value.kind.value, caught.value.reason


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        (b'{"a": "\xff\xfe"}', "json", "not UTF-8 text (byte 8: invalid start byte)"),
        ('{"a": 1}'.encode("utf-16"), "json", "not UTF-8 text (byte 1: invalid start byte)"),
        (b'{"a": "\xed\xa0\x80"}', "json", "not UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "json", "not JSON"),
        (b'{"a": "\x00"}', "json", "not JSON (Invalid control character at, at character 8)"),
        (b"\x00", "json", "not JSON"),
        (b'{"a": NaN}', "json", "NaN is not a JSON number"),
        (b'{"a": [-Infinity]}', "json", "-Infinity is not a JSON number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "json", "not JSON"),
        (b'{"a": ' * 100_000, "json", f"nested more than {MAX_DEPTH} levels"),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "json", "levels deep"),
        (b'{"a": ' + b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH + b"}", "json", "levels deep"),
        (b'{"a": 1, "a": 2}', "structure", "the key 'a' stands twice"),
        (b'{"turns": [{"from": 1, "from": 1}]}', "structure", "the key 'from' stands twice"),
        (f'{{"id": {SURROGATE}}}', "structure", r"'\ud800' has half of a surrogate pair"),
        (f'{{"a": [{{{SURROGATE}: 1}}]}}', "structure", "half of a surrogate pair"),
        (r'{"a": "x\uDC00y"}', "structure", "half of a surrogate pair"),
        (b"null", "structure", "the line is a NoneType, not an object"),
        (b'"text"', "structure", "the line is a str, not an object"),
        (b'{"a": "' + b"x" * MAX_LINE_BYTES + b'"}', "structure", f"more than {MAX_LINE_BYTES} bytes"),
    ],
    ids=range(20),
)
def test_a_bad_line_is_refused(line, kind, words):
    found, reason = refused(line)
    assert found == kind
    assert words in reason


def test_what_is_good_passes():
    assert parse_line('{"a": "\\ud83d\\ude00", "b": "\u2028\x7f"}'.encode(), "x") == {
        "a": "\U0001f600",
        "b": "\u2028\x7f",
    }
    deep: dict = {"a": 1}
    for _ in range(MAX_DEPTH - 1):
        deep = {"a": deep}
    assert parse_line(json.dumps(deep), "x") == deep
    many = {"a": [[n] for n in range(MAX_DEPTH * 2)]}
    assert parse_line(json.dumps(many), "x") == many


def test_lines_end_at_newlines_only(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\x0b\xe2\x80\xa8\x85\rstill two\n\nlast")
    assert list(read_lines(path)) == [b"one\r\n", b"two\x0b\xe2\x80\xa8\x85\rstill two\n", b"\n", b"last"]


def test_a_mark_alone_before_the_first_line_is_dropped(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf")
    assert list(read_lines(path)) == []


@pytest.mark.parametrize("end", [b"\nafter\n", b"\nafter", b""])
def test_a_long_line_is_cut_and_the_next_one_whole(tmp_path: Path, end: bytes):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"before\n" + b"x" * (3 * MAX_LINE_BYTES) + end)
    before, long, *after = read_lines(path)
    assert (before, long) == (b"before\n", b"x" * (MAX_LINE_BYTES + 1))
    assert [line.strip() for line in after] == ([b"after"] if end else [])


def test_a_long_line_is_never_whole_in_memory(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    with path.open("wb") as file:
        file.truncate(40 * MAX_LINE_BYTES)
    tracemalloc.start()
    try:
        assert sum(len(line) for line in read_lines(path)) == MAX_LINE_BYTES + 1
        assert tracemalloc.get_traced_memory()[1] < 5 * MAX_LINE_BYTES
    finally:
        tracemalloc.stop()


def test_what_is_no_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", tmp_path):
        with pytest.raises(DataError, match="is not a regular file"):
            list(read_lines(path))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_lines(tmp_path / ("n" * 300)))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_packed_file_is_named_after_its_last_line(tmp_path, kind, damage):
    lines = [f"{number:04d} {random.Random(number).random()}\n".encode() for number in range(20_000)]
    packed = (
        gzip.compress(b"".join(lines)) if kind == "gzip" else pyarrow.compress(b"".join(lines), "zstd", asbytes=True)
    )
    half = len(packed) // 2
    packed = packed[:half] if damage == "cut" else packed[:half] + bytes(64) + packed[half + 64 :]
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"train\.jsonl\.gz cannot be read after line \d+ \(.*\)\. Restore the file"):
        list(read_lines(path))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_packed_file_is_unpacked_piece_by_piece(tmp_path, kind):
    """256 MiB of zeros in one line, packed into less than a megabyte: the line is cut, the next one is read."""
    path = tmp_path / "train.jsonl"
    if kind == "gzip":
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(256):
                file.write(bytes(1 << 20))
            file.write(b"\nlast\n")
    else:
        with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
            for _ in range(256):
                file.write(bytes(1 << 20))
            file.write(b"\nlast\n")
    tracemalloc.start()
    first, last = read_lines(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(first), last) == (MAX_LINE_BYTES + 1, b"last\n")
    assert peak < 16 << 20
