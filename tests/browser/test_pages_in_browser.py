"""Data Docs and a comparison of runs in headless Chromium, with hostile data in every text."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.browser import VIEWS, Shown, needs_chromium, require_fit, require_quiet, show
from vl3.report.compare import compare_runs, write_comparison
from vl3.report.data_docs import write_data_docs
from vl3.report.data_stats import Distribution, write_stats_page
from vl3.report.finished_run import read_finished_run
from vl3.report.page import write_report
from vl3.report.samples import FrameView, SampleView, TextPart, write_samples_page

HOSTILE = "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>\""
LONG = "a" * 200 + "/" + "b" * 200

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, load_sample) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    write_data_docs(_hostile(load_sample.validation_data()), folder)
    runs = []
    for name in ("first", HOSTILE):
        place = folder / f"run-{len(runs)}"
        data = load_sample.report_data(place)
        data["run"]["overrides"] = [LONG]
        write_report(data, place, evaluation_folder=place)
        numbers = json.loads((place / "report.json").read_text())
        if runs:
            numbers["settings"] |= {"seed": 1e-5, HOSTILE: LONG, LONG: None}
        (place / "report.json").write_text(json.dumps(numbers))
        runs.append(read_finished_run(place, name))
    _write_pages_of_data(folder)
    write_comparison(compare_runs(*runs), folder / "compare.html")
    return {path.stem: path for path in folder.glob("*.html")}


def _write_pages_of_data(folder: Path) -> None:
    """The pages of samples and of statistics, with hostile names and texts."""
    frame = FrameView(
        uri="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII=",
        height_px=28,
        width_px=56,
        dropped="M28 0h28v28h-28z",
        kept_tokens=1,
        tokens=2,
        seconds=1.5,
    )
    counts = {"tokens": 9, "supervised_tokens": 8, "vision_tokens": 2, "kept_tokens": 1, "frames_left_out": 3}
    parts = (TextPart(text="", supervised=False, vision_tokens=1), TextPart(text=f"{HOSTILE} {LONG}", supervised=True))
    names = {"kind": HOSTILE, "where": LONG, "split": HOSTILE}
    places = tuple((step, 1) for step in range(20))
    views = [
        SampleView(sample_id=name, frames=(frame,) * 9, parts=parts, places=places, **counts, **names)
        for name in (HOSTILE, LONG)
    ]
    write_samples_page(views, folder / "shown_samples.html", dataset=LONG, stage="video", difffp=True)
    edges, bins = np.array([1.0, 2.0, 4.0]), np.array([0, 7, 2, 1])
    by_source = {HOSTILE: bins, LONG: 3 * bins, "chart:qa": bins}
    one = Distribution(title="Length", unit="tokens", edges=edges, by_source=by_source)
    samples = {name: int(counts.sum()) for name, counts in by_source.items()}
    write_stats_page([one, one], samples, folder / "stats.html", dataset=LONG, split="train", stage="video")


def _hostile(validation: dict[str, Any]) -> dict[str, Any]:
    """The validation with markup and words without a space in everything that comes from data."""
    own = copy.deepcopy(validation)
    for finding in (*own["critical"], *own["warnings"]):
        finding["rows"] = [{"where": HOSTILE, "reason": HOSTILE}, {"where": LONG, "reason": LONG}]
    own["left_out"] += [{"where": LONG, "kind": HOSTILE, "reason": LONG}]
    own["facts"]["refused"] += 1
    own["facts"]["by_category"]["train"] |= {HOSTILE: 1, LONG: 2}
    return own


@pytest.fixture(params=["index", "lines", "samples", "compare", "shown_samples", "stats"])
def page(request, pages: dict[str, Path]) -> Path:
    return pages[request.param]


@pytest.fixture(params=VIEWS, ids=str)
def shown(request, browser, page: Path) -> Iterator[Shown]:
    yield show(browser, page, request.param)
    assert browser.execute_script("return window.owned") is None


def test_nothing_is_asked_for_and_nothing_complains(shown: Shown) -> None:
    require_quiet(shown)


def test_the_page_fits_into_the_window(shown: Shown) -> None:
    require_fit(shown)


def test_index_shows_rules_and_leads_to_their_rows(browser, pages: dict[str, Path]) -> None:
    show(browser, pages["index"], VIEWS[0])
    text = browser.find_element("tag name", "body").text
    assert "2 critical checks refuse the dataset; 1 warning; 4 lines were left out." in text
    assert "Fails if media files are missing, but the samples were kept." in text
    browser.find_element("css selector", ".rules a[href^='samples']").click()
    assert browser.current_url == f"{pages['samples'].as_uri()}#check-2"
    target = browser.find_element("css selector", ":target").text
    assert "media files are missing" in target
    assert HOSTILE in target


def test_comparison_shows_both_runs(browser, pages: dict[str, Path]) -> None:
    show(browser, pages["compare"], VIEWS[0])
    text = browser.find_element("tag name", "body").text
    assert f"first and {HOSTILE}" in text
    assert "1e-5" in text
    charts = "return document.querySelectorAll('svg.chart polyline').length"
    assert browser.execute_script(charts) == 2 * 4
    assert browser.execute_script("return document.querySelectorAll('.changes tbody tr').length") == 10
