"""Cleaning of annotation files: what is kept is copied byte for byte, repeats are found at any number of lines."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vl3.data.derive import repeats
from vl3.data.derive.cleaning import clean
from vl3.errors import DataError


def sample(question: str, answer: str, image: str | None = "a.jpg", **more: Any) -> dict[str, Any]:
    tag = "<image>\n" if image else ""
    turns = [{"from": "human", "value": f"{tag}{question}"}, {"from": "gpt", "value": answer}]
    return {**({"image": image} if image else {}), "conversations": turns, **more}


def cleaned(folder: Path, *lines: Any) -> tuple[list[int], dict[str, int]]:
    """The places of the lines that are kept, and how many each rule dropped."""
    source, out = folder / "in.jsonl", folder / "out.jsonl"
    texts = [one if isinstance(one, str) else json.dumps({"note": place, **one}) for place, one in enumerate(lines)]
    source.write_text("\n".join(texts) + "\n")
    out.unlink(missing_ok=True)
    for name in ("out.card.json", "out.refused.jsonl"):
        (folder / name).unlink(missing_ok=True)
    card = clean([source], out)
    kept = out.read_text().splitlines()
    assert [texts[json.loads(line)["note"]] for line in kept] == kept
    left = card.lines
    for row in card.funnel:
        left -= row["dropped"]
        assert row["left"] == left
        assert row["reason"]
    assert left == card.samples
    return [json.loads(line)["note"] for line in kept], {
        row["rule"]: row["dropped"] for row in card.funnel if row["dropped"]
    }


def test_the_first_of_equal_lines_stays(tmp_path: Path) -> None:
    lines = [
        sample("What is it?", "A cat."),
        sample("what  is it?", "A CAT."),
        sample("What is it?", "A cat.", "b.jpg"),
        sample("What is it?", "A cat."),
        sample("What is it?", "A cat.", None),
        sample("What is it?", "A dog.", None),
    ]
    assert cleaned(tmp_path, *lines) == ([0, 2, 4, 5], {"duplicates": 2})


def test_contradictions_drop_all_that_are_concerned(tmp_path: Path) -> None:
    lines = [
        sample("Is it red?", "Yes"),
        sample("is it red?", "yes."),
        sample("Is it red?", "No"),
        sample("Is it red?", "It is a deep red."),
        sample("Is it red?", "No", "b.jpg"),
        sample("How many?", "2"),
        sample("How many?", "2", None),
        sample("How many?", "3", None),
    ]
    assert cleaned(tmp_path, *lines) == ([3, 4, 5, 6, 7], {"contradictions": 3})


def test_a_question_means_what_its_turns_before_make_of_it(tmp_path: Path) -> None:
    def follow_up(first: str, answer: str) -> dict[str, Any]:
        turns = sample(first, "A thing.")["conversations"]
        return {
            "image": "a.jpg",
            "conversations": [*turns, {"from": "human", "value": "Is it red?"}, {"from": "gpt", "value": answer}],
        }

    assert cleaned(tmp_path, follow_up("What is left?", "Yes"), follow_up("What is right?", "No")) == ([0, 1], {})
    assert cleaned(tmp_path, follow_up("What?", "Yes"), follow_up("What?", "No"), sample("Who?", "He."))[0] == [2]


def test_two_intervals_of_a_video_are_two_media(tmp_path: Path) -> None:
    def clip(start: float, answer: str) -> dict[str, Any]:
        turns = [{"from": "human", "value": "<video>\nDoes he jump?"}, {"from": "gpt", "value": answer}]
        return {"video": {"path": "v.mp4", "start": start}, "conversations": turns}

    assert cleaned(tmp_path, clip(1.0, "Yes"), clip(2.0, "No"), clip(2.0, "No")) == ([0, 1], {"duplicates": 1})


def test_lines_are_dropped_by_their_first_rule_and_bad_ones_named(tmp_path: Path) -> None:
    lines = ["{", "", sample("What?", "As an AI language model, ```"), sample("What?", "A cat.")]
    assert cleaned(tmp_path, *lines) == ([3], {"not a sample": 1, "unbalanced markup": 1})
    refused = [json.loads(line) for line in (tmp_path / "out.refused.jsonl").read_text().splitlines()]
    assert [(one["where"].rpartition(":")[2], one["kind"]) for one in refused] == [
        ("1", "json"),
        ("3", "unbalanced markup"),
    ]
    assert refused[1]["reason"].startswith("'```' stands 1 times: a block that is opened")


def test_nothing_is_left_after_all_was_dropped(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(sample("What?", "```")) + "\n")
    with pytest.raises(DataError, match="clean: no sample can be made of 1 lines"):
        clean([source], tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_file_that_grows_meanwhile_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text((json.dumps(sample("What?", "A cat.")) + "\n") * 3000)

    def append(_done: int, total: int) -> None:
        if not total:
            with source.open("a") as file:
                file.write(json.dumps(sample("Who?", "A man.")) + "\n")

    with pytest.raises(DataError, match="changed while being read"):
        clean([source], tmp_path / "out.jsonl", progress=append)
    assert not (tmp_path / "out.jsonl").exists()


def test_repeats_are_found_across_files(tmp_path: Path) -> None:
    for name, answer in (("a", "A cat."), ("b", "a cat.")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(sample("What?", answer)) + "\n")
    card = clean([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "out.jsonl")
    assert (card.lines, card.samples) == (2, 1)
    assert json.loads((tmp_path / "out.jsonl").read_text()) == sample("What?", "A cat.")


LINES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("pq"), st.sampled_from("yn x")), max_size=40)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(LINES, st.integers(1, 5))
def test_repeats_in_chunks_are_those_of_a_plain_search(tmp_path: Path, drawn: Any, chunk: int) -> None:
    words = {"y": "Yes", "n": "No", "x": "Perhaps it is.", " ": "Who knows."}
    lines = [(image, question, words[answer]) for image, question, answer in drawn]
    answers = defaultdict(set)
    for image, question, answer in lines:
        if answer in ("Yes", "No"):
            answers[image, question].add(answer)
    seen: set[Any] = set()
    kept = []
    for place, line in enumerate(lines):
        if line not in seen and not (line[2] in ("Yes", "No") and len(answers[line[:2]]) > 1):
            kept.append(place)
        seen.add(line)
    anchor = sample("Last question?", "The last answer.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "_CHUNK_RECORDS", chunk)
        patch.setattr(repeats, "_BUFFER_BYTES", 40)
        found, _ = cleaned(tmp_path, *(sample(f"Is it {q}?", a, f"{i}.jpg") for i, q, a in lines), anchor)
    assert found == [*kept, len(lines)]
