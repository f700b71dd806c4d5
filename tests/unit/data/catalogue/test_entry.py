"""The catalogue is whole and honest, and formats of one's own are found."""

import importlib.metadata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from vl3.data.catalogue import entry
from vl3.data.catalogue.adapter import Folder, Item
from vl3.data.catalogue.entry import FORMATS, Entry, find_entry, make_adapter, read_catalogue
from vl3.data.catalogue.listing import details, overview
from vl3.errors import ConfigError

CATALOGUE = read_catalogue()
ENTRIES = list(CATALOGUE.datasets.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Ours:
    """A format of a team."""

    file: str

    def items(self, folder: Folder) -> Iterator[Item]:
        return folder.text_items(self.file)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict]:
        yield {"conversations": [{"from": "human", "value": "Say"}, {"from": "gpt", "value": item.data}]}


def test_every_row_of_the_tables_has_datasets_and_the_reverse():
    named = {row for one in ENTRIES for row in one.rows}
    assert named == set(CATALOGUE.rows)
    assert all(one.rows for one in ENTRIES)
    # The number of datasets that each row of tables 1 to 4 names; pixmo and MIX rows count as printed.
    counts = {row: sum(row in one.rows for one in ENTRIES) for row in CATALOGUE.rows}
    assert counts["1 scene image"] == 4
    assert counts["2 scene image"] == 9
    assert counts["2 scene-text image"] == 6
    assert counts["2 document"] == 8
    assert counts["2 fine-grained"] == 6
    assert counts["2 text-only"] == 4
    assert counts["3 chart/figure"] == 7
    assert counts["3 text-only"] == 5
    assert counts["3 general video"] == 10
    assert counts["4 general video"] == 11
    assert counts["4 streaming video"] == 4
    assert counts["4 temporal grounding"] == 8


@pytest.mark.parametrize("one", ENTRIES, ids=lambda one: one.name)
def test_an_entry_says_how_it_is_read_or_why_not(one):
    assert one.title
    if one.format is None:
        assert one.note
        with pytest.raises(ConfigError, match=rf"{one.name} cannot be imported: "):
            make_adapter(one)
    else:
        make_adapter(one)
        assert one.layout
        assert one.layout_source
        assert one.home


def test_each_format_exists():
    for name in FORMATS:
        assert callable(entry._adapter_class(name).items)


def test_unknown_names_formats_and_options(tmp_path):
    with pytest.raises(ConfigError, match=r"'cats' is no dataset of the catalogue"):
        find_entry("cats")
    with pytest.raises(ConfigError, match=r"format 'cats' is unknown\. Use one of captions, chart_captions"):
        make_adapter(Entry(name="x", format="cats"))
    with pytest.raises(ConfigError, match="fils"):
        make_adapter(Entry(name="x", format="llava", options={"fils": ["a.json"]}))
    with pytest.raises(ConfigError, match=r"x: category 'cat' is none of scene_image"):
        Entry(name="x", category="cat")  # type: ignore[arg-type]
    path = tmp_path / "mine.yaml"
    path.write_text("files: [a]")
    with pytest.raises(ConfigError, match=r"mine\.yaml names no format\. Write `format:` with one of captions"):
        find_entry(str(path))
    path.write_text("a: [")
    with pytest.raises(ConfigError, match=r"mine\.yaml cannot be read"):
        find_entry(str(path))


def test_a_format_of_a_package_is_found(imported, monkeypatch):
    point = importlib.metadata.EntryPoint("ours", f"{__name__}:Ours", "vl3.data.adapters")
    broken = importlib.metadata.EntryPoint("broken", "no.such.module:X", "vl3.data.adapters")
    monkeypatch.setattr(entry, "entry_points", lambda group: [point, broken])
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: Ours if self.name == "ours" else _fail())
    lines, _ = imported(Entry(name="x", format="ours", options={"file": "a.txt"}), {"a.txt": "One.\nTwo.\n"})
    assert [line["conversations"][1]["value"] for line in lines] == ["One.", "Two."]
    with pytest.raises(ConfigError, match=r"format 'broken' \(no\.such\.module:X\) cannot be loaded \(gone\)"):
        make_adapter(Entry(name="x", format="broken"))


def _fail():
    raise ImportError("gone")


def test_the_listing_names_rows_and_reasons():
    rows = {row["name"]: row for row in overview(CATALOGUE)}
    assert rows["coin"]["import"] == "dense_video"
    assert rows["pdfa_eng"]["import"] == "no: its pages are PDF, and vl3 has no program that renders PDF"
    assert {row["name"] for row in overview(CATALOGUE, 1)} == {
        one.name for one in ENTRIES if any(row.startswith("1 ") for row in one.rows)
    }
    found = details(find_entry("coin"), CATALOGUE)
    assert found["rows of the paper's tables"] == "4 temporal grounding: 0.21M samples of 8 datasets together"
    assert found["options"] == "files=['COIN.json'], kind=coin"
