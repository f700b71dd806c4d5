"""The page of distributions: quantiles from bins, bars, and hostile names."""

import re
from pathlib import Path

import numpy as np
import pytest

from vl3.report.charts import histogram
from vl3.report.data_stats import Distribution, quantile, write_stats_page

HOSTILE = "<script>window.owned = 1</script>\u202e\x1b[2J"
EDGES = np.array([1.0, 2.0, 4.0])


def test_quantiles_are_read_off_the_bins() -> None:
    counts = np.array([0, 4, 4, 0])
    assert quantile(EDGES, counts, 0.5) == 2
    assert quantile(EDGES, counts, 0.75) == pytest.approx(2 * 2**0.5)
    assert quantile(EDGES, np.array([8, 0, 0, 0]), 0.5) == 0
    assert quantile(EDGES, np.array([0, 0, 0, 8]), 0.95) == 4
    assert np.isnan(quantile(EDGES, np.zeros(4, dtype=np.int64), 0.5))
    assert quantile(np.arange(1.0, 6.0), np.array([0, 0, 9, 0, 1, 0]), 0.5) == 2


def test_a_histogram_has_a_bar_for_each_bin_between_the_first_and_the_last() -> None:
    svg = histogram(EDGES.tolist(), [0, 3, 0, 1], title="Length", description="A message", x_label="tokens")
    tips = re.findall(r"<rect[^>]*><title>([^<]*)</title>", svg)
    assert tips == [
        "1 to 2 tokens: 3 samples (75.0%)",
        "2 to 4 tokens: 0 samples (0.0%)",
        "4 and more tokens: 1 samples (25.0%)",
    ]
    heights = [float(height) for height in re.findall(r'<rect[^>]*height="([\d.]+)"', svg)]
    assert heights[0] == pytest.approx(3 * heights[2], abs=0.05)
    assert heights[1] == 0
    assert histogram(EDGES.tolist(), [0, 0, 0, 0], title="", description="", x_label="") == ""


def test_the_page_shows_each_source_and_escapes_its_name(tmp_path: Path) -> None:
    names = [f"chart:{HOSTILE}", *(f"chart:s{number:02d}" for number in range(30))]
    counts = {name: np.array([0, 90 if number == 0 else 2, 0, 0]) for number, name in enumerate(names)}
    one = Distribution(title="Length", unit="tokens", edges=EDGES, by_source=counts)
    none = Distribution(
        title="Duration", unit="s", edges=EDGES, by_source={name: np.zeros(4, np.int64) for name in names}
    )
    samples = {name: int(bins.sum()) for name, bins in counts.items()}
    path = tmp_path / "page.html"
    write_stats_page([one, none], samples, path, dataset=HOSTILE, split="train", stage="video")
    page = path.read_text()
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    words = re.sub("<[^>]*>", "", page)
    assert "150 samples of the split train" in words
    assert "7 smaller sources have no charts of their own." in words
    assert "60.0" in words
    assert page.count("<svg") == 1 + 24
