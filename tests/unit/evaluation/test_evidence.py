"""Scores, differences and groups of evidence.json from item records."""

import json

import pytest

from tests.support.evidence import answered, item
from vl3.errors import DataError
from vl3.evaluation.evidence import digest_of, make_evidence
from vl3.evaluation.items import items_path, write_items
from vl3.evaluation.records import read_records
from vl3.proportions import wilson_interval


def test_a_score_of_parts_is_their_mean_and_each_has_its_interval() -> None:
    found = make_evidence({"video": {"heldout": answered({"chart": 9, "text": 4}, 10)}}, pairs=[])
    measure = found["models"]["video"]["benchmarks"]["heldout"]
    assert measure["score"] == pytest.approx(0.65)
    assert (measure["items"], measure["failed"], measure["not_judged"], measure["chance"]) == (20, 0, 0, 0.25)
    chart = measure["parts"]["chart"]
    assert (chart["score"], (chart["low"], chart["high"])) == (0.9, wilson_interval(9, 10))
    assert "parts" not in chart
    assert json.loads(json.dumps(found)) == found
    assert measure["low"] < 0.65 < measure["high"]


def test_a_benchmark_without_parts_has_none() -> None:
    found = make_evidence({"video": {"gqa": [item(1), item(2, 0.0)]}}, pairs=[])
    measure = found["models"]["video"]["benchmarks"]["gqa"]
    assert "parts" not in measure
    assert measure["score"] == 0.5


def test_failed_items_are_wrong_and_named_by_reason() -> None:
    items = [item(0), item(1, None), item(2, None), item(3, None, why_no_score="out of memory")]
    measure = make_evidence({"video": {"gqa": items}}, pairs=[])["models"]["video"]["benchmarks"]["gqa"]
    assert (measure["score"], measure["failed"]) == (0.25, 3)
    assert measure["reasons"] == [
        {"reason": "it cannot be decoded", "count": 2, "items": ["-0001", "-0002"]},
        {"reason": "out of memory", "count": 1, "items": ["-0003"]},
    ]


def test_without_a_judge_there_is_no_number_and_none_of_its_group() -> None:
    waiting = [item(0), item(1, None, why_no_score="not judged: no judge is set")]
    records = {"video": {"chartqa": waiting, "gqa": [item(0)]}}
    found = make_evidence(records, pairs=[], groups={"image": ["gqa", "chartqa", "mme"], "video": ["mvbench"]})
    measure = found["models"]["video"]["benchmarks"]["chartqa"]
    assert (measure["score"], measure["low"], measure["failed"], measure["not_judged"]) == (None, None, 0, 1)
    group = found["models"]["video"]["groups"]
    assert group == {
        "image": {
            "value": None,
            "low": None,
            "high": None,
            "at_least": None,
            "benchmarks": ["gqa", "chartqa"],
            "lacking": ["chartqa"],
        }
    }


def test_a_guess_is_the_best_constant_answer_where_answers_are_right_or_wrong() -> None:
    words = ["Red", "red ", "blue", "green"]
    items = [item(number, 1.0, reference=word, chance=None) for number, word in enumerate(words)]
    by_degrees = [item(number, 0.5, chance=None) for number in range(4)]
    found = make_evidence({"video": {"open": items, "caption": by_degrees}}, pairs=[])["models"]["video"]["benchmarks"]
    assert (found["open"]["chance"], found["open"]["guess"]) == (None, 0.5)
    assert found["caption"]["guess"] is None


def test_two_models_are_compared_on_the_questions_that_they_share() -> None:
    first = [item(0), item(1, 0.0), item(2, 1.0), item(3, 1.0), item(7)]
    second = [item(0), item(1, 1.0), item(2, 0.0), item(3, 1.0, sha256="other"), item(8)]
    (pair,) = make_evidence({"a": {"gqa": first}, "b": {"gqa": second, "mme": [item(1)]}}, pairs=[("a", "b")])["pairs"]
    found = pair["benchmarks"]["gqa"]
    assert (found["shared"], found["won"], found["lost"], found["unshared"]) == (3, 1, 1, 4)
    assert found["value"] == 0
    assert (found["first"], found["second"], found["verdict"]) == (
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
        "within chance",
    )
    assert pair["not_compared"] == ["mme"]


def test_a_clear_difference_has_a_verdict_and_an_absent_model_no_pair() -> None:
    records = {
        "a": {"heldout": answered({"chart": 20, "text": 50})},
        "b": {"heldout": answered({"chart": 60, "text": 50})},
    }
    (pair,) = make_evidence(records, pairs=[("a", "b"), ("champion", "b")])["pairs"]
    found = pair["benchmarks"]["heldout"]
    assert (found["value"], found["verdict"]) == (pytest.approx(0.2), "better")
    assert (found["parts"]["chart"]["verdict"], found["parts"]["text"]["verdict"]) == ("better", "within chance")
    assert found["second"] - found["first"] == pytest.approx(found["value"])
    (back,) = make_evidence(records, pairs=[("b", "a")])["pairs"]
    assert back["benchmarks"]["heldout"]["verdict"] == "worse"


def test_the_digest_is_that_of_the_questions() -> None:
    asked = [item(1), item(2)]
    assert digest_of(asked) == digest_of([item(2, 0.0), item(1)])
    assert digest_of(asked) != digest_of([item(1), item(2, sha256="0")])


def test_an_item_that_is_there_twice_is_refused() -> None:
    with pytest.raises(DataError, match=r"the records of gqa have 1 items twice, such as '-0001'"):
        make_evidence({"video": {"gqa": [item(1), item(1)]}}, pairs=[])


def test_a_headline_is_kept_and_not_judged() -> None:
    found = make_evidence({"video": {"mme": [item(1)]}}, pairs=[], headlines={"video": {"mme": 1901.0}})
    assert found["models"]["video"]["benchmarks"]["mme"]["headline"] == 1901.0


def test_records_are_read_by_model_and_benchmark(tmp_path) -> None:
    write_items(items_path(tmp_path, "video", "gqa"), [item(2), item(1)])
    found = read_records(tmp_path)
    assert {model: list(own) for model, own in found.items()} == {"video": ["gqa"]}
    assert [one.item_id for one in found["video"]["gqa"]] == ["-0001", "-0002"]
    assert read_records(tmp_path / "nothing") == {}


def test_what_a_server_scores_is_marked_and_in_no_group() -> None:
    waiting = [item(0, None, why_no_score="not judged: scored by the benchmark's server")]
    records = {"video": {"egoschema": waiting, "mvbench": [item(0)]}}
    groups = {"video": ["egoschema", "mvbench"]}
    found = make_evidence(records, pairs=[], groups=groups, submitted=["egoschema", "gqa"])["models"]["video"]
    assert found["benchmarks"]["egoschema"]["submitted"] is True
    assert "submitted" not in found["benchmarks"]["mvbench"]
    assert (found["groups"]["video"]["benchmarks"], found["groups"]["video"]["lacking"]) == (["mvbench"], [])
