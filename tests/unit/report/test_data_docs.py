"""Data Docs: every rule in words, every failing row, nothing that is not escaped."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vl3.report.data_docs import MAX_SHOWN_ROWS, write_data_docs

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


@pytest.fixture
def validation(report_sample) -> dict[str, Any]:
    return report_sample.validation_data()


def pages(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}


def test_index_has_a_row_for_each_table_and_rule(validation: dict[str, Any], tmp_path: Path) -> None:
    assert write_data_docs(validation, tmp_path) == tmp_path / "index.html"
    written = pages(tmp_path)
    assert set(written) == {"index.html", "lines.html", "samples.html"}
    text = written["index.html"]
    assert "2 critical checks refuse the dataset; 1 warning; 3 lines were left out." in re.sub(r"<[^>]*>", "", text)
    assert text.count("✓ passed") == 1
    assert "Fails if media files are missing, but the samples were kept." in text
    assert "Every value of <code>media_present</code> is true." in text
    for name in ("lines", "samples"):
        assert f'<a href="{name}.html">{name}</a>' in text


def test_failed_rules_come_first_with_their_rows(validation: dict[str, Any], tmp_path: Path) -> None:
    write_data_docs(validation, tmp_path)
    text = pages(tmp_path)["samples.html"]
    assert text.index("Fails if media files are missing") < text.index("Fails if samples have an unknown split")
    assert "annotations/train.jsonl:7" in text
    assert "media_present=no" in text
    assert "If it fails: Correct them and build again." in text


def test_long_lists_are_cut_and_say_so(validation: dict[str, Any], tmp_path: Path) -> None:
    line = validation["left_out"][0]
    validation["left_out"] = [{**line, "where": f"t:{number}"} for number in range(MAX_SHOWN_ROWS + 5)]
    validation["facts"]["refused"] = MAX_SHOWN_ROWS + 7
    write_data_docs(validation, tmp_path)
    text = pages(tmp_path)["lines.html"]
    assert f"t:{MAX_SHOWN_ROWS - 1}<" in text
    assert f"t:{MAX_SHOWN_ROWS}<" not in text
    assert '<data value="7">7</data> more lines are in the dataset\'s refused.jsonl.' in text


def test_everything_from_the_data_is_escaped(validation: dict[str, Any], tmp_path: Path) -> None:
    hostile = json.loads(re.sub(r'(?<=: )"(?!lines|samples|critical|warning)[^"]*"', '"HERE"', json.dumps(validation)))
    hostile = json.loads(json.dumps(hostile).replace("HERE", json.dumps(HOSTILE)[1:-1]))
    hostile["facts"] = {HOSTILE: HOSTILE, "table": {HOSTILE: {HOSTILE: HOSTILE}}}
    write_data_docs(hostile, tmp_path)
    written = pages(tmp_path)
    assert len(written) == 3
    for text in written.values():
        assert "&lt;script&gt;alert(1)" in text
        assert re.findall(r"<script|<img|onerror=[^)]*\)[^&]*>", text) == []


def test_half_of_a_surrogate_pair_costs_a_character_and_no_page(validation: dict[str, Any], tmp_path: Path) -> None:
    validation["left_out"][0]["reason"] = "file \udcff.png"
    write_data_docs(validation, tmp_path)
    assert "file ?.png" in pages(tmp_path)["lines.html"]


def test_pages_ask_for_nothing(validation: dict[str, Any], tmp_path: Path) -> None:
    write_data_docs(validation, tmp_path)
    for text in pages(tmp_path).values():
        links = set(re.findall(r'(?:href|src)="([^"#]*)', text))
        assert links <= {"data:,", "index.html", "lines.html", "samples.html"}
        assert "http" not in text.replace("http-equiv", "")
        assert "default-src 'none'" in text
