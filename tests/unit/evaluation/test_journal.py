"""Answers that are kept while an evaluation is not finished."""

from dataclasses import replace
from pathlib import Path

from vl3.evaluation.items import ItemRecord
from vl3.evaluation.journal import Journal, read_answers

ITEM = ItemRecord(
    benchmark="heldout",
    group="chart",
    item_id="a",
    sha256="0" * 64,
    prompt="<image>\nWhich?",
    media=("a.png",),
    reference="red",
    answer="röd",
    score=0.0,
    chance=0.25,
    why_no_score="",
    tokens=2,
    seconds=0.5,
)


def test_answers_of_all_processes_are_read(tmp_path: Path) -> None:
    uri = tmp_path.as_uri()
    with Journal(uri, "key", 0) as first, Journal(uri, "key", 1) as second:
        first.add("before", ITEM)
        second.add("video", replace(ITEM, item_id="b", answer=None, score=None, why_no_score="damaged"))
        assert read_answers(uri, "key")["before"] == {"a": ITEM}  # while they are written
    found = read_answers(uri, "key")
    assert found["video"]["b"].why_no_score == "damaged"
    assert set(found) == {"before", "video"}


def test_a_line_that_was_cut_is_asked_again(tmp_path: Path) -> None:
    with Journal(tmp_path.as_uri(), "key", 0) as journal:
        journal.add("before", ITEM)
        journal.add("before", replace(ITEM, item_id="b"))
    (path,) = (tmp_path / "answers").iterdir()
    whole = path.read_bytes()
    for length in (*range(0, len(whole), 17), len(whole) - 2):
        path.write_bytes(whole[:length])
        found = read_answers(tmp_path.as_uri(), "key").get("before", {})
        assert set(found) <= {"a", "b"}
        assert all(item == replace(ITEM, item_id=name) for name, item in found.items())
    assert "b" not in found
    path.write_bytes(whole)
    assert set(read_answers(tmp_path.as_uri(), "key")["before"]) == {"a", "b"}


def test_answers_to_other_questions_are_not_used(tmp_path: Path) -> None:
    with Journal(tmp_path.as_uri(), "former code", 0) as journal:
        journal.add("before", ITEM)
    assert read_answers(tmp_path.as_uri(), "key") == {}


def test_noise_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    for name, text in (("a.jsonl", ""), ("b.jsonl", "[1]\n"), ("c.jsonl", '{"identity": "key"}\n{"model": "m"}\n5\n')):
        (tmp_path / "answers" / name).write_text(text)
    assert read_answers(tmp_path.as_uri(), "key") == {}
