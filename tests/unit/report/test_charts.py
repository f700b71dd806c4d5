"""Ticks, scales and the drawing of charts."""

from xml.etree import ElementTree

import pytest

from vl3.report.charts import (
    Scale,
    ScorePoint,
    Series,
    accuracy_chart,
    line_chart,
    linear_ticks,
    log_ticks,
    tick_text,
)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 200, [0, 50, 100, 150, 200]), (0.0, 0.002, [0.0, 0.0005, 0.001, 0.0015, 0.002]), (3, 3, [3])],
)
def test_linear_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert linear_ticks(low, high, 5) == pytest.approx(expected)


def test_log_ticks_thin_out_over_many_decades() -> None:
    assert log_ticks(0.09, 2.1, 5) == pytest.approx([0.1, 0.2, 0.5, 1, 2])
    assert log_ticks(1e-5, 10, 5) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10])


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (2e-5, "2e-5"), (0.05, "0.05"), (1500, "1.5k")])
def test_tick_text_is_short(value: float, text: str) -> None:
    assert tick_text(value) == text


def test_a_scale_maps_the_ends_and_clamps() -> None:
    scale = Scale(0.0, 10.0, 100.0, 0.0)
    assert [scale(value) for value in (0, 5, 10, 20, -1)] == [100, 50, 0, 0, 100]
    assert Scale(0.01, 1.0, 0.0, 100.0, log=True)(0.1) == pytest.approx(50)


def chart(points: list[tuple[float, float]], **options: bool) -> str:
    series = [Series(name="<loss>", css_class="s-loss", points=points)]
    return str(line_chart(series, title="Loss & more", description="falls", x_label="step", **options))


def test_a_line_chart_is_valid_xml_with_escaped_texts_and_a_tooltip_for_each_point() -> None:
    root = ElementTree.fromstring(chart([(10, 2.0), (20, 1.0)]))
    assert root.find("title").text == "Loss & more"
    tips = [circle.find("title").text for circle in root.findall("circle")]
    assert tips == ["<loss>: 2 at step 10", "<loss>: 1 at step 20"]


def test_points_that_cannot_be_drawn_are_left_out() -> None:
    root = ElementTree.fromstring(chart([(1, float("nan")), (2, 0.0), (3, 1.0), (4, float("inf"))], log_y=True))
    assert len(root.findall("circle")) == 1


def test_a_chart_without_points_is_empty() -> None:
    assert chart([]) == ""
    assert chart([(1, float("nan"))]) == ""


def test_an_accuracy_chart_shows_chance_interval_and_rings() -> None:
    points = [
        ScorePoint(label="before", accuracy=0.0, low=0.0, high=0.04, css_class="s-before"),
        ScorePoint(label="S1", accuracy=0.5, low=0.4, high=0.6, hollow=True),
    ]
    root = ElementTree.fromstring(str(accuracy_chart(points, chance=0.25, title="Chart", description="")))
    assert [circle.get("class") for circle in root.iter("circle")] == ["score s-before", "score hollow"]
    assert len([line for line in root.iter("line") if line.get("class") == "chance"]) == 1
    assert "S1: 50.0% (95 % interval 40.0% to 60.0%)" in [title.text for title in root.iter("title")]
    without = str(accuracy_chart(points, chance=None, title="Chart", description=""))
    assert 'class="chance"' not in without
