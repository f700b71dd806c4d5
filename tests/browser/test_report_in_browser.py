"""The report in headless Chromium: it renders, complains about nothing and shows every figure."""

from pathlib import Path

import pytest

from tests.support.browser import VIEWS, Shown, needs_chromium, require_fit, require_quiet, show
from vl3.report.data import SECTIONS
from vl3.report.page import write_report

SIZES = """
return [...document.querySelectorAll(arguments[0])].map(element => {
  const box = element.getBoundingClientRect();
  return [element.className.baseVal ?? element.className, box.width, box.height];
});
"""

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, load_sample) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report(load_sample.report_data(folder), folder, evaluation_folder=folder)


@pytest.fixture(scope="module", params=VIEWS, ids=str)
def shown(request, browser, page: Path) -> Shown:
    """The browser with the page open at a width and in a colour scheme."""
    return show(browser, page, request.param)


def test_the_console_stays_empty_and_nothing_is_requested(shown: Shown) -> None:
    require_quiet(shown)


def test_every_section_and_figure_has_a_size(shown: Shown) -> None:
    browser = shown.browser
    for name in SECTIONS:
        [(_, width, height)] = browser.execute_script(SIZES, f"#{name}")
        assert width > 200, name
        assert height > 60, name
    charts = browser.execute_script(SIZES, "svg.chart")
    assert len(charts) == 10 + 4 * 3 + 1  # accuracy, three of each stage, lineage
    assert [chart for chart in charts if chart[1] < 120 or chart[2] < 80] == []
    shown_by = {name: len(browser.execute_script(SIZES, f"#{name} .media img")) for name in SECTIONS}
    predictions = 6 * (5 * 1 + 1 * 3 + 3 * 5)  # images, several images, videos
    expected = {"changed": 24, "extremes": 18, "predictions": predictions}
    assert {name: count for name, count in shown_by.items() if count} == expected
    pictures = browser.execute_script(SIZES, ".media img")
    assert len(pictures) == sum(expected.values())
    assert [picture for picture in pictures if picture[1] < 8 or picture[2] < 8] == []
    broken = "return [...document.images].filter(image => !image.naturalWidth).length"
    assert browser.execute_script(broken) == 0


def test_the_page_fits_into_the_window(shown: Shown) -> None:
    require_fit(shown)


def test_lineage_draws_every_parent(shown: Shown, load_sample, tmp_path: Path) -> None:
    nodes = load_sample.report_data(tmp_path)["lineage"]
    edges = shown.browser.execute_script(SIZES, ".tree .edge")
    assert len(edges) == sum(len(node.get("parents", [])) for node in nodes)
    assert len(shown.browser.execute_script(SIZES, ".tree .node")) == len(nodes)
    cut_off = """
    const tree = document.querySelector(".tree").getBoundingClientRect();
    return [...document.querySelectorAll(".tree rect, .tree path, .tree text")].filter(one => {
      const box = one.getBoundingClientRect();
      return box.left < tree.left || box.right > tree.right || box.top < tree.top || box.bottom > tree.bottom;
    }).length;
    """
    assert shown.browser.execute_script(cut_off) == 0


def test_text_stands_out_from_its_background_in_both_schemes(shown: Shown) -> None:
    browser, _, scheme, _ = shown
    colours = browser.execute_script(
        """
        const style = getComputedStyle(document.documentElement);
        return Object.fromEntries(arguments[0].map(name => [name, style.getPropertyValue(`--${name}`).trim()]));
        """,
        ["bg", "surface", "ink", "muted", "good", "good-bg", "bad", "bad-bg", "warn", "warn-bg", "info", "info-bg"],
    )
    pairs = [("ink", "bg"), ("ink", "surface"), ("muted", "bg"), ("muted", "surface")]
    pairs += [(name, f"{name}-bg") for name in ("good", "bad", "warn", "info")]
    ratios = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}
    assert (luminance(colours["bg"]) < 0.5) is (scheme == "dark")


def contrast(first: str, second: str) -> float:
    """Contrast ratio of WCAG 2."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_picture_and_chart_has_a_text(shown: Shown) -> None:
    browser = shown.browser
    script = "return [...document.querySelectorAll(arguments[0])].filter(one => !one.getAttribute(arguments[1])).length"
    assert browser.execute_script(script, "img", "alt") == 0
    assert browser.execute_script(script, "svg", "aria-label") == 0
    assert browser.execute_script(script, "th", "scope") == 0


def test_the_filter_leaves_the_wrong_predictions(browser, page: Path) -> None:
    browser.get(page.as_uri())
    visible = "return [...document.querySelectorAll('.prediction')].filter(one => one.offsetHeight).length"
    wrong = browser.execute_script("return document.querySelectorAll('.prediction[data-correct=no]').length")
    assert browser.execute_script(visible) == 60
    assert 0 < wrong < 60
    browser.execute_script("document.getElementById('wrong-only').click()")
    assert browser.execute_script(visible) == wrong
    browser.execute_script("document.getElementById('wrong-only').click()")
    assert browser.execute_script(visible) == 60


def test_a_hostile_sample_runs_nothing(browser, load_sample, tmp_path: Path) -> None:
    data = load_sample.report_data(tmp_path)
    data["evaluation"]["predictions"][0]["sample_id"] = "<img src=x onerror=\"document.title='owned'\">"
    data["evaluation"]["predictions"][0]["answer"] = "<script>document.title='owned'</script>"
    path = write_report(data, tmp_path, evaluation_folder=tmp_path)
    browser.get(path.as_uri())
    assert browser.title == "tiny-seed0 · vl3 run report"
    assert "<script>document.title='owned'</script>" in browser.find_element("tag name", "body").text
