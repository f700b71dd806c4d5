"""Which samples are asked, and what is right in a stream."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vl3.config.data import Category
from vl3.data.build.index import DatasetIndex
from vl3.data.sample.clips import Clip
from vl3.data.sample.records import Record, StreamEvent, Turn
from vl3.errors import DataError
from vl3.evaluation.tasks import (
    SILENT,
    RightMoment,
    choose_rows,
    is_right_moment,
    question_text,
    right_moment,
    spoken,
)


def make_index(rows: list[tuple[str, str, str, str | None]]) -> DatasetIndex:
    names = ("sample_id", "split", "category", "problem_kind")
    columns = {name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(names)}
    return DatasetIndex(Path("dataset"), pa.table(columns))


def many_rows() -> list[tuple[str, str, str, str | None]]:
    rows = [(f"chart-{n}", "heldout", "chart", None) for n in range(20)]
    rows += [(f"chart-train-{n}", "train", "chart", None) for n in range(20)]
    rows += [("scene-1", "heldout", "scene_image", None), ("scene-2", "heldout", "scene_image", "undecodable")]
    return rows


def test_only_heldout_samples_without_a_problem_are_asked_in_the_order_of_the_categories() -> None:
    rows = many_rows()
    chosen = choose_rows(make_index(rows), 8)
    assert list(chosen) == ["scene_image", "chart"]
    assert [rows[row][0] for row in chosen["scene_image"]] == ["scene-1"]
    assert len(chosen["chart"]) == 8
    assert {rows[row][1] for row in chosen["chart"]} == {"heldout"}


def test_the_choice_does_not_depend_on_the_order_of_the_annotations() -> None:
    rows = many_rows()
    turned = rows[::-1]
    first = {rows[row][0] for row in choose_rows(make_index(rows), 8)["chart"]}
    second = {turned[row][0] for row in choose_rows(make_index(turned), 8)["chart"]}
    assert first == second


def test_a_larger_choice_contains_the_smaller_one() -> None:
    index = make_index(many_rows())
    assert choose_rows(index, 12)["chart"][:8] == choose_rows(index, 8)["chart"]


def test_a_dataset_without_heldout_samples_is_refused() -> None:
    index = make_index([("a", "train", "chart", None), ("b", "heldout", "chart", "undecodable")])
    with pytest.raises(DataError, match=r"dataset has no held-out sample.*raise data\.holdout_fraction"):
        choose_rows(index, 8)


def make_record(**changes: object) -> Record:
    values: dict[str, object] = {
        "sample_id": "one",
        "split": "heldout",
        "category": Category.STREAMING,
        "source": "qa",
        "media": (),
        "turns": (),
        "events": (),
        "chance": None,
        "where": "annotations/heldout.jsonl:1",
    }
    return Record(**{**values, **changes})  # type: ignore[arg-type]


def test_the_question_is_the_last_one_without_tags() -> None:
    turns = (
        Turn(role="user", text="<image>\nFirst?"),
        Turn(role="assistant", text="Yes."),
        Turn(role="user", text="And <image> then?"),
        Turn(role="assistant", text="No."),
    )
    assert question_text(make_record(turns=turns)) == "And\nthen?"
    assert question_text(make_record(turns=turns[:2])) == "First?"


def stream_record() -> Record:
    events = (
        StreamEvent(role="user", text="Say when it changes.", time_seconds=10.0),
        StreamEvent(role="assistant", text="Red", time_seconds=13.0),
        StreamEvent(role="assistant", text="Blue", time_seconds=15.0),
    )
    return make_record(events=events, media=(Clip(path="v.mp4", start_seconds=10.0),))


def test_the_right_moment_is_the_last_frame_before_the_first_answer() -> None:
    right = right_moment(stream_record(), np.array([10.0, 11.0, 12.0, 13.0, 14.0]))
    assert right == RightMoment(frame_index=3, text="Red")
    assert question_text(stream_record()) == "Say when it changes."


@pytest.mark.parametrize(
    ("frame_index", "text", "expected"),
    [(3, "red ", True), (3, "blue", False), (2, "red", False), (4, "red", False), (None, "", False)],
    ids=["right", "wrong words", "too early", "too late", "silent"],
)
def test_a_stream_is_right_at_the_right_frame_with_the_right_words(
    frame_index: int | None, text: str, expected: bool
) -> None:
    assert is_right_moment(frame_index, text, RightMoment(frame_index=3, text="Red")) is expected


def test_a_spoken_answer_carries_the_time_of_the_stream() -> None:
    assert spoken(3, "red", np.array([10.0, 11.0, 12.0, 13.0]), 10.0) == "3.0 s: red"
    assert spoken(None, "", np.array([10.0]), 10.0) == SILENT


def test_only_the_categories_that_are_named_are_asked() -> None:
    index = make_index(many_rows())
    assert list(choose_rows(index, 8, (Category.CHART,))) == ["chart"]
    assert choose_rows(index, 8, (Category.CHART,))["chart"] == choose_rows(index, 8)["chart"]
    with pytest.raises(DataError, match=r"without a problem in document \(evaluation.categories\)"):
        choose_rows(index, 8, (Category.DOCUMENT,))
