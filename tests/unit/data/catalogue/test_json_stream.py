"""JSON files value by value: every layout, every place where the window may end, and damage."""

import contextlib
import json
import random

import pytest

from vl3.data.catalogue import json_stream
from vl3.data.catalogue.json_stream import members, values
from vl3.errors import DataError

THINGS = [{"id": 12345, "text": 'a "quoted\\" [bracket] {', "list": [1, 2.5, None, True]}, [], {}, "x", -1.5e3, 7, None]


@pytest.fixture(params=[1, 2, 3, 7, 1 << 16])
def window(request, monkeypatch):
    """Characters read at a time: with one, the window ends at every place."""
    monkeypatch.setattr(json_stream, "_CHUNK_CHARACTERS", request.param)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_values_of_an_array(tmp_path, window):
    assert list(values(write(tmp_path / "a.json", f" {json.dumps(THINGS, indent=1)}\n"))) == THINGS
    assert list(values(write(tmp_path / "a.json", "[]"))) == []
    assert list(values(write(tmp_path / "a.json", "\ufeff[1]"))) == [1]


def test_values_of_lines_and_of_one_object(tmp_path, window):
    lines = [{"a": 1}, {"b": [2]}]
    assert list(values(write(tmp_path / "a.jsonl", "".join(json.dumps(line) + "\n" for line in lines)))) == lines
    assert list(values(write(tmp_path / "a.json", json.dumps(lines[0], indent=2)))) == lines[:1]
    assert list(values(write(tmp_path / "a.json", " \n"))) == []


def test_members_of_an_object_and_within_it(tmp_path, window):
    data = {"info": {"deep": [1, {"images": 0}]}, "n": 3, "images": [{"id": 1}, {"id": 2}], "by": {"v_1": {"d": 8.0}}}
    path = write(tmp_path / "a.json", json.dumps(data))
    assert [key for key, _ in members(path)] == list(data)
    assert dict(members(path)) == data
    assert list(members(path, "images")) == [("0", {"id": 1}), ("1", {"id": 2})]
    assert list(members(path, "by")) == [("v_1", {"d": 8.0})]
    assert list(members(path, "by", "v_1")) == [("d", 8.0)]
    with pytest.raises(DataError, match=r"a\.json has no key 'annotations'\. Its layout is another"):
        list(members(path, "annotations"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[{"a": 1}, {"b": ]', 18),
        ('[{"a": 1} {"b": 2}]', 11),
        ("[1, 2", 6),
        ('{"a": 1', 8),
        ("[1, 2}", 6),
        ("[1.x]", 3),
        ("[1, 2 3]", 7),
        ("nonsense", 1),
    ],
)
def test_damage_is_named_with_its_place(tmp_path, window, text, place):
    with pytest.raises(DataError, match=rf"a\.json is not JSON at character {place} \(.*\)\. Restore the file"):
        list(values(write(tmp_path / "a.json", text)))


def test_what_is_no_utf8_or_too_deep_or_missing(tmp_path):
    (tmp_path / "a.json").write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match=r"a\.json is not JSON at character 1 .*can't decode"):
        list(values(tmp_path / "a.json"))
    with pytest.raises(DataError, match=r"is not JSON"):
        list(values(write(tmp_path / "a.json", "[" * 200_000)))
    with pytest.raises(DataError, match=r"b\.json cannot be read \(No such file"):
        list(values(tmp_path / "b.json"))


def test_a_value_too_long_for_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_VALUE_CHARACTERS", 1000)
    monkeypatch.setattr(json_stream, "_CHUNK_CHARACTERS", 100)
    path = write(tmp_path / "a.json", json.dumps(["a" * 900, "b" * 5000]))
    with pytest.raises(DataError, match=r"one value has more than 1000 characters"):
        list(values(path))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_to_a_file_it_is_read_or_named(tmp_path, seed, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK_CHARACTERS", 5)
    rng = random.Random(seed)
    text = json.dumps({"images": [{"id": 1}], "annotations": THINGS})
    for _ in range(150):
        at = rng.randrange(len(text))
        changed = text[:at] + rng.choice(["", "[", "}", '"', ",", "0", "\\"]) + text[at + rng.randrange(3) :]
        path = write(tmp_path / "a.json", changed)
        with contextlib.suppress(DataError):
            assert [value for _, value in members(path, "annotations")]
