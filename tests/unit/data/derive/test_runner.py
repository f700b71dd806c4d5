"""Makers run over files: what is written, what is refused by place, and that nothing is left after an error."""

import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl3.data.derive.makers import PLAIN_MAKERS, OcrTasks, Streams
from vl3.data.derive.runner import make_samples
from vl3.data.derive.streams import read_bounds
from vl3.data.sample.problems import SampleProblem
from vl3.data.sample.records import Record, read_annotations
from vl3.errors import ConfigError, DataError

STREET = {"image": "a.jpg", "width": 100, "height": 100, "texts": [{"text": "STOP", "box": [1, 2, 30, 9]}]}
SHOP = {**STREET, "image": "b.jpg", "caption": "A shop.", "texts": [{"text": "OPEN", "box": [1, 2, 30, 9]}]}


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_samples_have_ids_and_bad_lines_are_named(tmp_path: Path) -> None:
    facts = write(tmp_path / "facts.jsonl", STREET, "{", "", {**STREET, "width": 0}, SHOP)
    out = tmp_path / "annotations" / "train.jsonl"
    card = make_samples("scene-text", PLAIN_MAKERS["scene-text"], [facts], out)
    assert [(line["id"], line["source"]) for line in read(out)] == [
        ("scene_text-1-1", "scene_text"),
        ("scene_text-4-1", "scene_text"),
    ]
    refused = read(out.with_name("train.refused.jsonl"))
    assert [line["where"].rpartition(":")[2] for line in refused] == ["2", "4"]
    assert "not JSON" in refused[0]["reason"]
    assert refused[1]["reason"] == "width: 0 is not a number of pixels. Correct or drop the line."
    assert (card.lines, card.samples, card.refused) == (4, 2, 2)
    assert json.loads(out.with_name("train.card.json").read_text())["reasons"]["json"][0] == 1


def test_a_maker_that_lacks_something_names_the_line(tmp_path: Path) -> None:
    facts = write(tmp_path / "facts.jsonl", STREET, SHOP)
    card = make_samples("ocr-captions", PLAIN_MAKERS["ocr-captions"], [facts], tmp_path / "o.jsonl")
    assert card.reasons["structure"][0] == 1
    assert card.reasons["structure"][1].endswith("facts.jsonl:1")


def test_a_source_name_stands_in_all_lines(tmp_path: Path) -> None:
    facts = write(tmp_path / "facts.jsonl", STREET, SHOP)
    make_samples("ocr-tasks", OcrTasks(seed=1), [facts], tmp_path / "o.jsonl", source_name="shops")
    lines = read(tmp_path / "o.jsonl")
    assert {line["source"] for line in lines} == {"shops"}
    assert len({line["id"] for line in lines}) == len(lines) > 5


def test_a_seed_decides_all_and_packing_changes_nothing(tmp_path: Path) -> None:
    facts = write(tmp_path / "facts.jsonl", *(STREET, SHOP) * 20)
    packed = tmp_path / "facts.jsonl.gz"
    packed.write_bytes(gzip.compress(facts.read_bytes()))

    def made(source: Path, name: str, seed: int) -> bytes:
        make_samples("ocr-tasks", OcrTasks(seed=seed), [source], tmp_path / name)
        return (tmp_path / name).read_bytes()

    plain = made(facts, "a.jsonl", 1)
    assert made(packed, "b.jsonl", 1) == plain
    assert made(facts, "c.jsonl", 2) != plain
    zipped = made(facts, "d.jsonl.gz", 1)
    assert zipped == made(facts, "e.jsonl.gz", 1)
    assert gzip.decompress(zipped) == plain
    with pyarrow.CompressedInputStream(pyarrow.BufferReader(made(facts, "f.jsonl.zst", 1)), "zstd") as stream:
        assert stream.read() == plain


def test_streams_say_what_they_dropped(tmp_path: Path) -> None:
    captions = [{"start": second, "end": second + 9.0, "caption": "He runs."} for second in range(0, 100, 10)]
    facts = write(
        tmp_path / "facts.jsonl",
        {"video": "v.mp4", "captions": captions},
        {"video": "w.mp4", "captions": [{"start": 0, "end": 130, "caption": "Long."}]},
    )
    maker = Streams(bounds=read_bounds())
    card = make_samples("streams", maker, [facts], tmp_path / "o.jsonl", dropped=maker.dropped)
    assert card.samples == 1
    assert card.dropped["captions longer than a clip may be"] == 1
    records = list(read_annotations(tmp_path / "o.jsonl", "train"))
    assert all(isinstance(record, Record) and record.is_stream for record in records)


def test_nothing_is_written_where_nothing_is_made(tmp_path: Path) -> None:
    facts = write(tmp_path / "facts.jsonl", {"image": "a.jpg"})
    with pytest.raises(DataError, match=r"no sample can be made of 1 lines\. .*facts.jsonl:1: width: None"):
        make_samples("scene-text", PLAIN_MAKERS["scene-text"], [facts], tmp_path / "o.jsonl")
    with pytest.raises(DataError, match="nothing is left"):
        make_samples("scene-text", PLAIN_MAKERS["scene-text"], [write(facts)], tmp_path / "o.jsonl")
    with pytest.raises(DataError, match="does not exist"):
        make_samples("scene-text", PLAIN_MAKERS["scene-text"], [tmp_path / "none"], tmp_path / "o.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["facts.jsonl"]


@pytest.mark.parametrize(("name", "message"), [("facts.jsonl", "never overwritten"), ("o.json", "no name of an")])
def test_an_output_never_replaces_a_file(tmp_path: Path, name: str, message: str) -> None:
    facts = write(tmp_path / "facts.jsonl", STREET)
    content = facts.read_bytes()
    with pytest.raises(ConfigError, match=message):
        make_samples("scene-text", PLAIN_MAKERS["scene-text"], [facts], tmp_path / name)
    assert facts.read_bytes() == content


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
GOOD = {
    **SHOP,
    "regions": [{"caption": "A car.", "box": [1, 2, 30, 9]}],
    "phrases": [{"span": [0, 3], "boxes": [[1, 2, 30, 9]]}],
    "video": "v.mp4",
    "captions": [{"start": 1.0, "end": 2.5, "caption": "A man runs."}],
}
PATHS = [
    *((key,) for key in GOOD),
    *((key, 0) for key in ("texts", "regions", "phrases", "captions")),
    *(("texts", 0, key) for key in ("text", "box")),
    *(("phrases", 0, key) for key in ("span", "boxes")),
    *(("captions", 0, key) for key in ("start", "end", "caption")),
]


@given(st.sampled_from(PATHS), JSON)
def test_any_value_in_any_place_is_used_or_refused(path: tuple[Any, ...], value: Any) -> None:
    data = json.loads(json.dumps(GOOD))
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    for maker in (*PLAIN_MAKERS.values(), OcrTasks(seed=0), Streams(bounds=read_bounds())):
        with suppress(SampleProblem):
            for line in maker(data, "a:1"):
                json.dumps(line)
