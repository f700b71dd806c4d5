"""The report in headless Chromium: it renders, complains about nothing and shows every figure."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from vl3.report.data import SECTIONS
from vl3.report.page import write_report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WIDTHS_PX = (1280, 400)
SHOTS = os.environ.get("VL3_REPORT_SHOTS")
"""Folder for full-page screenshots, for people; none are taken without it."""
SIZES = """
return [...document.querySelectorAll(arguments[0])].map(element => {
  const box = element.getBoundingClientRect();
  return [element.className.baseVal ?? element.className, box.width, box.height];
});
"""

pytestmark = pytest.mark.skipif(
    not CHROMIUM or not DRIVER, reason="needs Chromium: apt-get install -y chromium chromium-driver"
)


class Shown(NamedTuple):
    """The open page."""

    browser: Any
    width: int
    scheme: str
    logs: dict[str, list[str]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, load_sample) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report(load_sample.report_data(folder), folder, evaluation_folder=folder)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(
    scope="module", params=[(width, scheme) for width in WIDTHS_PX for scheme in ("light", "dark")], ids=str
)
def shown(request, browser, page: Path) -> Shown:
    """The browser with the page open at a width and in a colour scheme."""
    width, scheme = request.param
    scheme_feature = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme_feature})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 640}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for log in ("browser", "performance"):
        browser.get_log(log)  # what earlier pages left
    browser.get(page.as_uri())
    logs = {log: [entry["message"] for entry in browser.get_log(log)] for log in ("browser", "performance")}
    if SHOTS:
        take_screenshot(browser, Path(SHOTS) / f"report_{width}_{scheme}.png", width)
    return Shown(browser, width, scheme, logs)


def take_screenshot(browser, path: Path, width: int) -> None:
    import base64

    height = browser.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(shot["data"]))


def test_the_console_stays_empty_and_nothing_is_requested(shown: Shown) -> None:
    assert shown.logs["browser"] == []
    requests = [message for message in shown.logs["performance"] if "Network.requestWillBeSent" in message]
    assert len(requests) > 0, "the log of requests is empty, so it proves nothing"
    assert [message for message in requests if '"url":"http' in message] == []


def test_every_section_and_figure_has_a_size(shown: Shown) -> None:
    browser = shown.browser
    for name in SECTIONS:
        [(_, width, height)] = browser.execute_script(SIZES, f"#{name}")
        assert width > 200, name
        assert height > 60, name
    charts = browser.execute_script(SIZES, "svg.chart")
    assert len(charts) == 10 + 4 * 3
    assert [chart for chart in charts if chart[1] < 120 or chart[2] < 80] == []
    pictures = browser.execute_script(SIZES, ".media img")
    assert len(pictures) == 6 * (5 * 1 + 1 * 3 + 3 * 5)  # images, several images, videos
    assert [picture for picture in pictures if picture[1] < 8 or picture[2] < 8] == []
    broken = "return [...document.images].filter(image => !image.naturalWidth).length"
    assert browser.execute_script(broken) == 0


def test_the_page_is_no_wider_than_the_window(shown: Shown) -> None:
    browser, width, *_ = shown
    assert browser.execute_script("return document.documentElement.scrollWidth") == width


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
