"""Imports: where media go, what is refused, what is left, and that nothing leads out of the folder."""

import json
import tracemalloc

import pyarrow.parquet
import pytest

from tests.unit.data.catalogue.conftest import PICTURE, read_lines, read_refused
from vl3.data.build.dataset import build_dataset
from vl3.data.catalogue.adapter import turns
from vl3.data.catalogue.entry import Entry
from vl3.data.catalogue.importer import import_dataset
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.records import Record, find_annotations, read_annotations
from vl3.errors import ConfigError, DataError, StorageError
from vl3.store.objects import open_store
from vl3.system.uris import file_uri

ENTRY = Entry(name="own", licence="ours", format="llava", options={"files": ["a.json"]})


def line(path: str | None, answer: str = "A cat.") -> dict:
    return {"conversations": turns("What?", answer), **({"image": path} if path else {})}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "pics").mkdir(parents=True)
    (folder / "pics" / "a.png").write_bytes(PICTURE)
    (tmp_path / "secret.png").write_bytes(PICTURE)
    (folder / "pics" / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


def write(root, items) -> None:
    (root / "a.json").write_text(json.dumps(items))


def test_an_import_is_a_data_folder(root, tmp_path, tokenizer, config):
    write(root, [line("pics/a.png"), line(None), line("pics/a.png", "It sleeps.")])
    out = tmp_path / "out"
    import_dataset(ENTRY, root, file_uri(out))
    records = list(read_annotations(find_annotations(out, "train"), "train"))
    assert [record.sample_id for record in records if isinstance(record, Record)] == ["own-1", "own-2", "own-3"]
    assert {record.source for record in records if isinstance(record, Record)} == {"own"}
    assert (root / "pics" / "a.png").samefile(out / "pics" / "a.png")
    summary = build_dataset(out, tmp_path / "dataset", config=config, tokenizer=tokenizer, prune=keep_mask, workers=1)
    assert (summary.lines, summary.samples) == (3, 3)


def test_the_same_import_gives_the_same_bytes(root, tmp_path):
    write(root, [line("pics/a.png")])
    for name in ("one", "two"):
        import_dataset(ENTRY, root, file_uri(tmp_path / name))
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert all((tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes() for path in files)


def test_what_is_refused_is_named_and_counted(root, tmp_path):
    items = [
        line("pics/a.png"),
        line("../secret.png"),
        line("pics/link.png"),
        line("/etc/passwd"),
        line("pics/../pics/a.png"),
        line("pics/none.png"),
        line("pics/a.png", " "),
        "no object",
        {"conversations": [{"from": "human"}]},
        {"conversations": [{"from": "human", "value": 3}]},
        {"conversations": None},
        line({"path": None, "bytes": None}),
    ]
    write(root, items)
    card = import_dataset(ENTRY, root, file_uri(tmp_path / "out"))
    refused = read_refused(tmp_path / "out")
    assert [entry["where"] for entry in refused] == [f"a.json:{number}" for number in range(2, 13)]
    assert [entry["kind"] for entry in refused[:6]] == [*["outside_folder"] * 4, "missing_file", "no_answer"]
    assert {entry["kind"] for entry in refused[6:]} == {"structure"}
    written = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (written["items"], written["samples"], written["refused"]) == (12, 1, 11)
    assert written["reasons"]["outside_folder"][0] == card.reasons["outside_folder"][0] == 4
    assert written["reasons"]["outside_folder"][1][0] == "a.json:2"
    assert not list((tmp_path / "out").rglob("secret.png"))


def test_in_place_nothing_is_copied(root):
    write(root, [line("pics/a.png")])
    before = sorted(path.name for path in root.rglob("*"))
    import_dataset(ENTRY, root, file_uri(root))
    assert sorted(path.name for path in root.rglob("*")) == sorted(
        [*before, "annotations", "train.jsonl.gz", "dataset.json"]
    )
    with pytest.raises(ConfigError, match=r"has been imported already\. Remove dataset\.json"):
        import_dataset(ENTRY, root, file_uri(root))


def test_where_an_import_may_not_go(root, tmp_path):
    write(root, [line(None)])
    with pytest.raises(ConfigError, match=r"is inside of the dataset's folder"):
        import_dataset(ENTRY, root, file_uri(root / "pics" / "out"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(StorageError, match=r"exists and is not empty"):
        import_dataset(ENTRY, root, file_uri(tmp_path / "full"))


def test_a_failed_import_leaves_nothing(root, tmp_path):
    (root / "a.json").write_text(json.dumps([line(None)])[:-1] + ", {broken")
    with pytest.raises(DataError, match=r"a\.json is not JSON at character"):
        import_dataset(ENTRY, root, file_uri(tmp_path / "out"))
    write(root, [line("pics/none.png")])
    with pytest.raises(DataError, match=r"own: no sample is good\. a\.json:1: media file 'pics/none\.png' does not"):
        import_dataset(ENTRY, root, file_uri(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_an_import_into_an_object_store_is_the_same_folder(root, tmp_path, s3_root):
    rows = [{"image": {"bytes": PICTURE, "path": None}, "answer": "A."}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "b.parquet")
    write(root, [line("pics/a.png"), line("pics/none.png")])
    embedded = Entry(name="own", format="parquet", options={"files": ["b.parquet"], "answer": "answer"})
    for name, entry in (("files", ENTRY), ("embedded", embedded)):
        import_dataset(entry, root, f"{s3_root}/{name}")
        import_dataset(entry, root, file_uri(tmp_path / name))
        store, folder = open_store(f"{s3_root}/{name}"), tmp_path / name
        keys = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        assert store.list() == keys
        assert all(store.read(key) == (folder / key).read_bytes() for key in keys)


@pytest.mark.parametrize("pattern", ["../*.json", "/etc/*.json", "none.json"])
def test_files_of_the_layout_are_below_the_folder(root, tmp_path, pattern):
    entry = Entry(name="own", format="llava", options={"files": [pattern]})
    with pytest.raises(DataError, match=r"leads outside of|has no file 'none\.json', so it is not laid out"):
        import_dataset(entry, root, file_uri(tmp_path / "out"))


def test_a_list_of_files_that_is_a_link_to_outside_is_not_read(root, tmp_path):
    (tmp_path / "b.json").write_text(json.dumps([line(None)]))
    (root / "a.json").symlink_to(tmp_path / "b.json")
    with pytest.raises(DataError, match=r"'a\.json' leads outside the data folder"):
        import_dataset(ENTRY, root, file_uri(tmp_path / "out"))


def test_memory_does_not_grow_with_the_dataset(root, tmp_path):
    """300 and 3,000 items take the same, within 300 kB; the large file has 600 kB."""
    peaks = []
    for name, count in (("small", 300), ("large", 3_000)):
        with (root / "a.json").open("w") as file:
            file.write("[" + ",".join(json.dumps(line(None, "word " * 20)) for _ in range(count)) + "]")
        tracemalloc.start()
        import_dataset(ENTRY, root, file_uri(tmp_path / name))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert len(read_lines(tmp_path / "large")) == 3_000
    assert peaks[1] < peaks[0] + 300_000
