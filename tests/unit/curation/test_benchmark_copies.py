"""What stands in published benchmarks is found in training data: items of real layouts, copied as evaluations do."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import Table, parquet

from tests.support.benchmarks import build
from tests.support.curation import file_of, photo
from vl3.cli.main import run
from vl3.curation.benchmark_copies import CopyContent, entries_of_copy, frame_hashes, values_within
from vl3.curation.benchmark_index import index_copies
from vl3.curation.scorers.benchmarks import INDEX_FILE, BenchmarkNearness
from vl3.curation.scorers.image_facts import perceptual_hash
from vl3.errors import DataError
from vl3.evaluation.catalogue.copies import make_copy
from vl3.evaluation.catalogue.entry import read_benchmarks
from vl3.store.artifacts import publish
from vl3.system.uris import file_uri

QUESTION = "What is the highest value that the blue line of the chart reaches?"


def chartqa(folder: Path, data: bytes) -> Path:
    """A copy of ChartQA with one question about one picture."""
    entry = read_benchmarks()["chartqa"]
    entry = replace(entry, parts=(replace(entry.parts[0], items=1),))
    row = {"type": "human", "question": QUESTION, "answer": "12", "image": {"bytes": data, "path": "charts/a.png"}}
    (folder / "data").mkdir(parents=True)
    parquet.write_table(Table.from_pylist([row]), folder / "data" / "test-00000.parquet")
    make_copy(entry, folder, folder.parent / "copy")
    return folder.parent / "copy"


def test_a_benchmarks_picture_and_question_are_found_in_training_data(tmp_path: Path) -> None:
    chart = photo(1, 200, 160)
    content = index_copies({"chartqa": chartqa(tmp_path / "root", file_of(chart))}, tmp_path)
    assert content.counts == {"chartqa": {"pictures": 1, "frames": 0, "texts": 3}}
    recompressed = np.asarray(Image.open(io.BytesIO(file_of(chart, "JPEG", quality=80))).resize((150, 120)))
    batch = {
        "sha256": np.array(["a", "b", "c"], dtype=object),
        "phash": np.array([perceptual_hash(one) for one in (recompressed, photo(2), photo(3))], dtype=object),
        "text": np.array(["a chart", f"Answer this. {QUESTION.upper()}", "What is the value?"], dtype=object),
    }
    made = BenchmarkNearness("bench", tmp_path)(batch)
    assert made["bench_distance"][0] <= 4
    assert min(made["bench_distance"][1:]) > 8
    assert made["bench_text"].tolist() == [0.0, pytest.approx(6 / 8), 0.0]
    assert made["bench_item"][:2].tolist() == ["chartqa/chartqa/0", "chartqa/chartqa/0"]


@pytest.mark.parametrize(("name", "kind"), [("mmmu", "pictures"), ("videomme", "frames")])
def test_pictures_and_frames_of_published_layouts_are_in_the_index(name: str, kind: str, tmp_path: Path) -> None:
    entry, _ = build(name, tmp_path / "root")
    make_copy(entry, tmp_path / "root", tmp_path / "copy")
    content = CopyContent()
    entries = list(entries_of_copy(entry, tmp_path / "copy", content))
    assert content.unreadable == []
    assert content.counts[name][kind] == sum(one.phash is not None for one in entries) >= 3
    assert content.counts[name]["texts"] == sum(bool(one.text) for one in entries) >= 3


def test_a_picture_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    copy = chartqa(tmp_path / "root", b"\x89PNG not a picture")
    with pytest.raises(DataError, match=r"1 media of the benchmarks cannot be decoded.*chartqa/chartqa/0"):
        index_copies({"chartqa": copy}, tmp_path)
    assert not (tmp_path / INDEX_FILE).exists()
    assert len(index_copies({"chartqa": copy}, tmp_path, partial=True).unreadable) == 1


def test_a_video_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    copy = chartqa(tmp_path / "root", file_of(photo(1)))
    (copy / "media").mkdir()
    (copy / "media" / "a.mp4").write_bytes(b"junk")
    content = CopyContent()
    list(entries_of_copy(read_benchmarks()["chartqa"], copy, content))
    assert len(content.unreadable) == 1
    assert "chartqa/a.mp4" in content.unreadable[0]
    with pytest.raises(Exception, match=r"x\.mp4"):
        frame_hashes(copy / "media" / "a.mp4", "x.mp4")


def test_paths_of_pictures_and_files_in_base64_are_no_texts() -> None:
    row = {"q": "Which?", "image": {"bytes": b"x", "path": "a.png"}, "options": ["a", None], "blob": "A" * (1 << 17)}
    assert list(values_within(row)) == ["Which?", b"x", "a"]


def test_the_command_indexes_published_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = chartqa(tmp_path / "root", file_of(photo(1)))
    publish(copy, file_uri(tmp_path / "copies" / "chartqa"), kind="benchmark", created_by={"benchmark": "chartqa"})
    command = ["curate", "benchmarks", "--copies", str(tmp_path / "copies"), "--out", str(tmp_path / "index")]
    assert run([*command, "--benchmark", "chartqa"]) == 0
    assert "chartqa" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "index" / INDEX_FILE).num_rows == 4
    assert run([*command, "--benchmark", "chartqa", "--benchmark", "docvqa"]) == 2
    assert "no copy of docvqa" in capsys.readouterr().err
