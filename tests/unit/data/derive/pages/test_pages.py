"""Drawn pages: their text is the corpus in order, all of it is on the paper, and a seed decides every byte."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from vl3.data.derive.pages.fonts import Fonts, find_fonts, load_font
from vl3.data.derive.pages.layout import Page, lay_out
from vl3.data.derive.pages.make import make_pages
from vl3.data.derive.pages.text import Text
from vl3.data.sample.records import Record, read_annotations
from vl3.errors import ConfigError, DataError, StorageError

WORDS = "The quick brown fox jumps over the lazy dog while 12 wizards pack a box (see p. 7)."


@pytest.fixture(scope="module")
def fonts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pillow's own font, which has Latin letters, and a file that is none."""
    folder = tmp_path_factory.mktemp("fonts")
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert isinstance(font.path, io.BytesIO)
    (folder / "inner").mkdir()
    (folder / "inner" / "plain.ttf").write_bytes(font.path.getvalue())
    (folder / "broken.otf").write_bytes(b"no font")
    return folder


@pytest.fixture(scope="module")
def fonts(fonts_folder: Path) -> Fonts:
    return find_fonts(fonts_folder)


def laid_out(fonts: Fonts, *paragraphs: str, seed: int = 0) -> tuple[list[Page], list[tuple[str, str]]]:
    """All pages of a text, and what was left out."""
    left_out: list[tuple[str, str]] = []
    lines = ((f"c:{number}", one.encode()) for number, one in enumerate(paragraphs, start=1))
    text = Text(lines, lambda where, reason: left_out.append((where, reason)))
    pages: list[Page] = []
    while (page := lay_out(text, fonts, seed=seed, number=len(pages))) is not None:
        pages.append(page)
    return pages, left_out


def read(out: Path) -> list[dict[str, Any]]:
    with gzip.open(out / "annotations" / "train.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def test_fonts_are_found_and_those_that_are_none_are_named(fonts: Fonts) -> None:
    assert [Path(font.path).name for font in fonts.files] == ["plain.ttf"]
    assert fonts.unusable == ("broken.otf",)


def test_no_font_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"No font .* \(1 files are no fonts .*Install fonts .* by --fonts"):
        find_fonts(tmp_path)


PARAGRAPHS = st.lists(
    st.text(st.sampled_from("abc de,.fghi jklmn opq"), min_size=1, max_size=400).filter(str.strip),
    min_size=1,
    max_size=9,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(PARAGRAPHS, st.integers(0, 2**40))
def test_pages_have_the_whole_text_in_order_and_within_their_sides(fonts: Fonts, paragraphs: Any, seed: int) -> None:
    pages, left_out = laid_out(fonts, *paragraphs, seed=seed)
    assert not left_out
    read_back = "".join(line for page in pages for line in page.lines)
    assert read_back.replace(" ", "") == "".join("".join(paragraphs).split())
    for page in pages:
        drawn = "".join(one.text for one in page.drawn).replace(" ", "")
        assert drawn == "".join(page.lines).replace(" ", "")
        for one in page.drawn:
            right = one.left_px + load_font(one.font_path, one.size_px).getlength(one.text)
            assert -0.5 <= one.left_px < right <= page.width_px + 0.5
            assert 0 <= one.top_px <= page.height_px - one.size_px


def test_columns_are_read_one_after_the_other(fonts: Fonts) -> None:
    words = " ".join(f"word{number}" for number in range(4000))
    pages, _ = laid_out(fonts, words)
    assert " ".join(line for page in pages for line in page.lines).split() == words.split()
    columns = [page for page in pages if len({round(one.left_px / 80) for one in page.drawn if one.left_px > 400})]
    assert columns, "no page has a second column"


def test_a_word_wider_than_a_column_is_split(fonts: Fonts) -> None:
    pages, _ = laid_out(fonts, "x" * 3000)
    assert "".join(line for page in pages for line in page.lines) == "x" * 3000


def test_what_cannot_be_drawn_is_named(fonts: Fonts) -> None:
    hebrew, chinese, combining = "\u05e9\u05dc\u05d5\u05dd", "\u4f60\u597d", "q\u0308"
    pages, left_out = laid_out(fonts, WORDS, hebrew, chinese, combining, "a\x07b", "<image> here", "", WORDS)
    assert " ".join(pages[0].lines) == f"{WORDS} {WORDS}"
    assert [(where, reason[:20]) for where, reason in left_out] == [
        ("c:2", "it is written from r"),
        ("c:3", "no font has all of i"),
        ("c:4", "it has signs that co"),
        ("c:5", "it has control chara"),
        ("c:6", "it has a media tag, "),
    ]


def test_a_folder_of_pages_is_a_data_folder_that_its_seed_decides(tmp_path: Path, fonts_folder: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join([WORDS] * 300) + "\n\xad\n")
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed, workers in zip(folders, (5, 5, 6), (1, 2, 1), strict=True):
        make_pages([corpus], folder, pages=3, seed=seed, fonts_folder=fonts_folder, workers=workers)
    names = [f"pages/000000/{number:09d}.jpg" for number in range(3)]
    assert [line["image"] for line in read(folders[0])] == [[name] for name in names]
    for name in (*names, "annotations/train.jsonl.gz"):
        first, second, other = ((folder / name).read_bytes() for folder in folders)
        assert first == second != other
    card = json.loads((folders[0] / "annotations" / "train.card.json").read_text())
    assert card["samples"] == 3
    assert list(card["settings"]["fonts"]) == ["plain.ttf"]
    records = list(read_annotations(folders[0] / "annotations" / "train.jsonl.gz", "train"))
    assert all(isinstance(record, Record) and record.category == "document" for record in records)


def test_ink_lies_where_the_text_was_set(tmp_path: Path, fonts_folder: Path) -> None:
    """A page whose text ends early is empty below; one that is full is not."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join([WORDS] * 60) + "\n")
    make_pages([corpus], tmp_path / "out", pages=50, seed=1, fonts_folder=fonts_folder)
    paths = sorted((tmp_path / "out").rglob("*.jpg"))
    assert len(paths) < 50, "the corpus ends before"

    def edges(path: Path) -> float:
        """How much neighbouring pixels differ in the middle of the picture."""
        pixels = np.asarray(Image.open(path).convert("L"), np.float32)
        height, width = pixels.shape
        middle = pixels[height // 5 : -height // 5, width // 5 : -width // 5]
        return float((np.abs(np.diff(middle, axis=1)) > 40).mean())

    assert min(edges(path) for path in paths[:-1]) > 0.005


def test_a_corpus_without_a_page_leaves_nothing(tmp_path: Path, fonts_folder: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n\u4f60\n")
    with pytest.raises(DataError, match=r"pages: no sample can be made of 1 lines"):
        make_pages([corpus], tmp_path / "out", pages=3, seed=0, fonts_folder=fonts_folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(StorageError, match="never overwritten"):
        make_pages([corpus], tmp_path / "out", pages=3, seed=0, fonts_folder=fonts_folder)
