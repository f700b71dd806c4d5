"""Headless Chromium for tests of pages: what it shows, complains about and asks for."""

import base64
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
VIEWS = [(width, scheme) for width in (1280, 400) for scheme in ("light", "dark")]
"""Widths in pixels and colour schemes in which pages are looked at."""
SHOTS = os.environ.get("VL3_REPORT_SHOTS")
"""Folder for full-page screenshots, for people; none are taken without it."""
CUT_OFF = """
return [...document.querySelectorAll("nav ul, .scroll, .cards, .card, dd, p")]
  .filter(one => !one.closest("details, .visually-hidden") && one.scrollWidth > one.clientWidth + 1)
  .map(one => [one.tagName, one.className, one.scrollWidth, one.clientWidth]);
"""
"""Script that lists the parts of a page of which something is hidden."""

needs_chromium = pytest.mark.skipif(
    not CHROMIUM or not DRIVER, reason="needs Chromium: apt-get install -y chromium chromium-driver"
)


class Shown(NamedTuple):
    """The open page."""

    browser: Any
    width: int
    scheme: str
    logs: dict[str, list[str]]


def start_browser() -> Any:
    """A driver of a browser without a window, which keeps its console and its requests."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


def show(browser: Any, page: Path, view: tuple[int, str]) -> Shown:
    """Open a page at a width and in a colour scheme."""
    width, scheme = view
    scheme_feature = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme_feature})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 640}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for log in ("browser", "performance"):
        browser.get_log(log)  # what earlier pages left
    browser.get(page.as_uri())
    logs = {log: [entry["message"] for entry in browser.get_log(log)] for log in ("browser", "performance")}
    if SHOTS:
        _take_screenshot(browser, Path(SHOTS) / f"{page.stem}_{width}_{scheme}.png", width)
    return Shown(browser, width, scheme, logs)


def require_quiet(shown: Shown) -> None:
    """Fail if the page asked any host for anything, or if the browser complained."""
    assert shown.logs["browser"] == []
    requests = [message for message in shown.logs["performance"] if "Network.requestWillBeSent" in message]
    assert len(requests) > 0, "the log of requests is empty, so it proves nothing"
    assert [message for message in requests if '"url":"http' in message or '"url":"ws' in message] == []


def require_fit(shown: Shown) -> None:
    """Fail if the page is wider than the window, or if a desktop hides a part of it; a phone may scroll tables."""
    assert shown.browser.execute_script("return document.documentElement.scrollWidth") <= shown.width
    if shown.width > 640:
        assert shown.browser.execute_script(CUT_OFF) == []


def _take_screenshot(browser: Any, path: Path, width: int) -> None:
    height = browser.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(shot["data"]))
