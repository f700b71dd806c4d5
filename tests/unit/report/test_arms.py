"""The comparison of an ablation's arms: numbers, verdict and page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vl3.report.arms import ArmResult, compare_arms, verdict, write_arms_page
from vl3.report.bars import Bar, bar_chart


def _arm(name: str, right: int, published: float, benchmarks: dict[str, float] | None = None) -> ArmResult:
    """One category of 100 questions, of which the first ones are right."""
    task = {"accuracy": right / 100, "correct": right, "total": 100, "chance": 0.25, "low": 0.1, "high": 0.9}
    before = {"name": "before", "tasks": {"chart": task | {"correct": 0, "accuracy": 0.0}}, "mean_accuracy": 0.0}
    after = {"name": f"{name}_instruction", "tasks": {"chart": task}, "mean_accuracy": right / 100}
    answers = "1" * right + "0" * (100 - right)
    items = {
        "chart": {
            "ids": [f"q{number}" for number in range(100)],
            "sha256": ["d"] * 100,
            "right": {"before": "0" * 100, after["name"]: answers},
        }
    }
    return ArmResult(
        name=name,
        title=f"{name} <encoder>",
        facts={"pixels": "56 x 56"},
        models=[before, after],
        items=items,
        benchmarks=benchmarks or {},
        published={"gqa": published},
    )


@pytest.fixture
def arms() -> list[ArmResult]:
    return [
        _arm("clip", 40, 61.5),
        _arm("dfn", 42, 62.7, benchmarks={"gqa": 12.5}),
        _arm("siglip", 80, 62.92),
    ]


def test_scores_stand_beside_the_published_ones(arms: list[ArmResult]) -> None:
    found = compare_arms(arms)
    assert [(arm["name"], arm["mean_before"], arm["mean_accuracy"]) for arm in found["arms"]] == [
        ("clip", 0.0, 0.4),
        ("dfn", 0.0, 0.42),
        ("siglip", 0.0, 0.8),
    ]
    (row,) = found["categories"]
    assert (row["category"], row["best"], row["scores"]["dfn"]["correct"]) == ("chart", ["siglip"], 42)
    (benchmark,) = found["benchmarks"]
    assert benchmark == {
        "benchmark": "gqa",
        "published": {"clip": 61.5, "dfn": 62.7, "siglip": 62.92},
        "ours": {"clip": None, "dfn": 12.5, "siglip": None},
        "best_published": ["siglip"],
        "best_ours": ["dfn"],
        "partial": [],
    }


def test_a_score_of_a_part_of_a_benchmark_says_so(arms: list[ArmResult], tmp_path: Path) -> None:
    lacking = "gqa has 3 questions instead of 12578"
    found = compare_arms([replace(arm, partial={"gqa": [lacking]}) for arm in arms])
    assert found["benchmarks"][0]["partial"] == [lacking]
    write_arms_page(found, tmp_path, run_name="a-run")
    assert f'title="{lacking}"> ours of a part' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_pairs_are_compared_question_by_question(arms: list[ArmResult]) -> None:
    pairs = {(one["first"], one["second"]): one["tasks"]["chart"] for one in compare_arms(arms)["pairs"]}
    assert list(pairs) == [("clip", "dfn"), ("clip", "siglip"), ("dfn", "siglip")]
    assert pairs["clip", "dfn"]["verdict"] == "within chance"
    assert pairs["clip", "siglip"]["verdict"] == "better"
    assert pairs["clip", "siglip"]["questions"] == 100


def test_the_verdict_says_whether_the_first_is_ahead_beyond_chance(arms: list[ArmResult]) -> None:
    means = "mean held-out accuracy clip 0.400, dfn 0.420, siglip 0.800"
    assert verdict(compare_arms(arms)) == f"{means}; siglip is first, beyond chance ahead of dfn"
    two = compare_arms(arms[:2])
    assert verdict(two).endswith("dfn is first, within chance of clip")


def test_the_page_has_every_number_and_escapes_titles(arms: list[ArmResult], tmp_path: Path) -> None:
    found = compare_arms(arms)
    write_arms_page(found, tmp_path, run_name="a-run")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == found
    assert "clip &lt;encoder&gt;" in page
    assert "clip <encoder>" not in page
    assert "siglip is first, beyond chance ahead of dfn." in page
    for text in ("61.5", "62.7", "62.92", "12.5", "not measured", "42 of 100", "arXiv 2501.13106, table 9"):
        assert text in page
    assert page.count("<svg") == 2


def test_a_bar_shows_its_value_interval_and_the_published_one() -> None:
    bars = [Bar(label="a", value=0.5, interval=(0.4, 0.6), published=0.75), Bar(label="b", value=None)]
    chart = str(bar_chart(bars, percent=True, title="t", description="d"))
    assert "a: 50.0%, 95 % interval 40.0% to 60.0%, published 75.0%" in chart
    assert "b: not measured" in chart
    assert chart.count('class="bar"') == 1
    top, bottom = 10, 128  # of the scale from 0 to 1
    assert f'y="{(top + bottom) / 2}"' in chart
    assert str(bar_chart([Bar(label="a", value=None)], percent=True, title="t", description="d")) == ""
