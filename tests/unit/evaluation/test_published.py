"""The paper's numbers, and our scores beside them."""

import pytest

from vl3.evaluation.beside import beside_published
from vl3.evaluation.catalogue.entry import read_benchmarks
from vl3.evaluation.published import paper_groups, published, size_of

# A second reading of tables 5 to 8 of the paper, in their order.
PAPER_2B = [79.8, 91.9, 69.4, 779, 59.2, 15.5, 28.6, 45.3, 44.2, 67.3, 78.2, 62.7, 1901]
PAPER_2B += [59.6, 63.4, 39.9, 65.5, 58.5, 68.0, 58.2, 65.4, 57.1, 41.6, 63.4, 81.1, 55.5]
PAPER_7B = [86.3, 94.9, 78.9, 828, 67.1, 26.2, 33.6, 48.8, 56.7, 72.7, 84.7, 64.9, 2102]
PAPER_7B += [66.2, 70.3, 44.1, 69.7, 63.3, 72.8, 61.3, 73.0, 59.8, 45.3, 68.1, 84.5, 60.7]
PEER_7B = [86.1, 94.5, 77.6, 845, 65.4, 19.7, 34.3, 56.0, 54.8, 70.7, 93.2, 62.4, 2344]
PEER_7B += [64.2, 70.0, 43.7, 72.0, 66.7, 68.9, 60.9, 70.9, 60.0, 44.7, 69.7, 85.0]


def test_all_26_benchmarks_have_the_papers_numbers_at_both_sizes() -> None:
    for size, rows in published().items():
        assert len(rows) == 26, size
        assert [sum(row.kind == kind for row in rows.values()) for kind in ("image", "video")] == [13, 13]
        assert all(row.differences and row.title and row.higher_is_better for row in rows.values())
    assert {name: len(own) for name, own in paper_groups().items()} == {"image": 13, "video": 13}


def test_the_numbers_are_those_of_the_papers_tables() -> None:
    small, large = (list(published()[size].values()) for size in ("2B", "7B"))
    assert [one.benchmark for one in small] == [one.benchmark for one in large] == list(read_benchmarks())
    assert [one.paper for one in small] == PAPER_2B
    assert [one.paper for one in large] == PAPER_7B
    assert [one.best_peer[1] for one in large if one.best_peer] == PEER_7B


@pytest.mark.parametrize(
    ("size", "benchmark", "paper", "peer"),
    [
        ("2B", "docvqa", 91.9, ("Qwen2-VL-2B", 90.1)),
        ("2B", "ocrbench", 779.0, ("InternVL2.5-2B", 804.0)),
        ("2B", "mvbench", 65.5, ("InternVL2.5-2B", 68.8)),
        ("7B", "ai2d", 84.7, ("Molmo-7B-D", 93.2)),
        ("7B", "tempcompass", 68.1, ("NVILA-8B", 69.7)),
        ("7B", "charades_sta", 60.7, None),
    ],
)
def test_single_numbers_are_those_of_the_tables(
    size: str, benchmark: str, paper: float, peer: tuple[str, float] | None
) -> None:
    row = published()[size][benchmark]
    assert (row.paper, row.best_peer) == (paper, peer)


def test_numbers_of_others_keep_where_they_come_from() -> None:
    row = published()["7B"]["mmvu"]
    assert row.footnotes["NVILA-8B"] == "*"
    assert row.footnotes["Qwen2-VL-7B"] == "+"


def test_a_recipe_of_the_papers_size_is_known() -> None:
    assert [size_of(name) for name in ("vl3_2b", "vl3_7b", "tiny")] == ["2B", "7B", None]


def evidence(**measures: dict) -> dict:
    common = {"items": 100, "failed": 0, "not_judged": 0}
    own = {name: {**common, **measure} for name, measure in measures.items()}
    return {"models": {"video": {"benchmarks": own}}}


def test_a_score_is_shown_on_the_papers_scale_with_its_interval() -> None:
    given = evidence(
        mvbench={"score": 0.66, "low": 0.64, "high": 0.68},
        ocrbench={"score": 0.8, "low": 0.785, "high": 0.82},
        chartqa={"score": 0.7, "low": 0.68, "high": 0.72},
        heldout={"score": 0.9, "low": 0.8, "high": 0.95},
    )
    rows = beside_published(given, "video", "vl3_2b")
    assert [(row["benchmark"], round(row["score"], 1), row["published"][0]["verdict"]) for row in rows] == [
        ("chartqa", 70.0, "below"),
        ("ocrbench", 800.0, "above"),
        ("mvbench", 66.0, "within our interval"),
    ]
    assert [row["full"] for row in rows] == [100.0, 1000.0, 100.0]


def test_points_need_the_harness_and_a_benchmark_without_a_judge_has_no_number() -> None:
    unjudged = {"score": None, "low": None, "high": None, "not_judged": 40}
    given = evidence(mme={"score": 0.8, "low": 0.7, "high": 0.9}, activitynet_qa=unjudged)
    mme, judged = beside_published(given, "video", "vl3_7b")
    assert (mme["score"], mme["published"][0]["verdict"]) == (None, None)
    assert (judged["score"], judged["not_judged"]) == (None, 40)
    given["models"]["video"]["benchmarks"]["mme"]["headline"] = 2150.0
    mme = beside_published(given, "video", "vl3_7b")[0]
    assert (mme["score"], mme["low"], mme["full"], mme["published"][0]["verdict"]) == (2150.0, None, 2800.0, "above")


def test_a_model_of_another_size_is_shown_beside_both() -> None:
    given = evidence(gqa={"score": 0.6, "low": 0.5, "high": 0.7})
    (row,) = beside_published(given, "video", "tiny")
    assert [one["size"] for one in row["published"]] == ["2B", "7B"]


def test_a_score_of_a_part_says_what_the_copy_lacks() -> None:
    given = evidence(gqa={"score": 0.6, "low": 0.5, "high": 0.7}, mvbench={"score": 0.6, "low": 0.5, "high": 0.7})
    given["made_of"] = {"partial": {"gqa": ["gqa has 3 questions instead of 12578"]}}
    rows = {row["benchmark"]: row["partial"] for row in beside_published(given, "video", "vl3_2b")}
    assert rows == {"gqa": ["gqa has 3 questions instead of 12578"], "mvbench": []}
