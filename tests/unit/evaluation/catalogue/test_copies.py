"""Local copies of benchmarks: each published layout, and what is wrong with a copy."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.benchmarks import build, write_zip
from vl3.errors import DataError
from vl3.evaluation.catalogue.copies import BenchmarkCopy, make_copy, read_copy, show_media
from vl3.evaluation.catalogue.entry import read_benchmarks


@pytest.mark.parametrize("name", list(read_benchmarks()))
def test_each_published_layout_becomes_a_whole_copy(name: str, tmp_path: Path) -> None:
    entry, expected = build(name, tmp_path / "root")
    copy = make_copy(entry, tmp_path / "root", tmp_path / "out")
    items = sum(len(answers) for answers in expected.answers.values())
    assert copy == BenchmarkCopy(benchmark=name, items=items, expected=items)
    assert read_copy(tmp_path / "out", entry) == copy
    show_media(tmp_path / "home", entry, tmp_path / "out")
    if entry.layout.media_column:
        found = [
            path.name for path in (tmp_path / "home" / entry.layout.media / entry.layout.media_folder).rglob("*.mp4")
        ]
        assert found


def test_a_half_copied_benchmark_names_what_is_missing(tmp_path: Path) -> None:
    entry, _ = build("nextqa", tmp_path / "root")
    write_zip(tmp_path / "root" / "videos.zip", {"NExTVideo/10.mp4": b"x"})
    message = r"not the whole of NextQA .* 2 of the media .* such as NExTVideo/11\.mp4, NExTVideo/12\.mp4.*--partial"
    with pytest.raises(DataError, match=message):
        make_copy(entry, tmp_path / "root", tmp_path / "out")
    copy = make_copy(entry, tmp_path / "root", tmp_path / "other", partial=True)
    assert (copy.missing_media, copy.is_complete) == (2, False)
    assert read_copy(tmp_path / "other", entry).problems == copy.problems


def test_another_number_of_questions_is_another_version(tmp_path: Path) -> None:
    entry, _ = build("chartqa", tmp_path / "root")
    published = replace(entry, parts=read_benchmarks()["chartqa"].parts)
    with pytest.raises(DataError, match="chartqa has 3 questions instead of 2500"):
        make_copy(published, tmp_path / "root", tmp_path / "out")


def test_other_columns_are_another_version(tmp_path: Path) -> None:
    entry, _ = build("chartqa", tmp_path / "root")
    other = replace(entry, layout=replace(entry.layout, columns=(*entry.layout.columns, "human_or_machine")))
    with pytest.raises(DataError, match=r"have the columns answer, image, question, type and lack human_or_machine"):
        make_copy(other, tmp_path / "root", tmp_path / "out")


def test_a_missing_data_file_configuration_or_folder_is_named(tmp_path: Path) -> None:
    entry, _ = build("gqa", tmp_path / "root")
    with pytest.raises(DataError, match="is not a folder, so there is no GQA to bring"):
        make_copy(entry, tmp_path / "nowhere", tmp_path / "out")
    for path in (tmp_path / "root").rglob("testdev_balanced_instructions/*.parquet"):
        path.unlink()
    with pytest.raises(
        DataError, match=r"no file matches testdev_balanced_instructions/testdev-\*.*copy is incomplete"
    ):
        make_copy(entry, tmp_path / "root", tmp_path / "out")
    (tmp_path / "root" / "README.md").write_text("---\nconfigs:\n- config_name: other\n---\n")
    with pytest.raises(DataError, match="names the configurations other and not 'testdev_balanced_instructions'"):
        make_copy(entry, tmp_path / "root", tmp_path / "out")


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    entry, _ = build("chartqa", tmp_path / "root")
    path = next((tmp_path / "root").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet: not a readable Parquet file"):
        make_copy(entry, tmp_path / "root", tmp_path / "out")


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    entry, _ = build("nextqa", tmp_path / "root")
    path = tmp_path / "root" / "videos.zip"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"videos\.zip: the archive cannot be unpacked"):
        make_copy(entry, tmp_path / "root", tmp_path / "out")


@pytest.mark.parametrize("member", ["../evil.mp4", "/evil.mp4", "a\\..\\evil.mp4"])
def test_an_archive_that_leads_outside_is_refused(member: str, tmp_path: Path) -> None:
    entry, _ = build("nextqa", tmp_path / "root")
    write_zip(tmp_path / "root" / "more.zip", {member: b"x"})
    with pytest.raises(DataError, match="which would be written outside the copy"):
        make_copy(entry, tmp_path / "root", tmp_path / "out")
    assert not list(tmp_path.glob("**/evil.mp4"))


def test_pieces_of_an_archive_are_joined(tmp_path: Path) -> None:
    entry, _ = build("nextqa", tmp_path / "root")
    whole = tmp_path / "root" / "videos.zip"
    content = whole.read_bytes()
    whole.unlink()
    (tmp_path / "root" / "videos.zip.001").write_bytes(content[:500])
    (tmp_path / "root" / "videos.zip.002").write_bytes(content[500:])
    assert make_copy(entry, tmp_path / "root", tmp_path / "out").is_complete


def test_a_card_that_names_files_outside_is_refused(tmp_path: Path) -> None:
    entry, _ = build("chartqa", tmp_path / "root")
    head = "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: test, path: ../../etc/*}\n---\n"
    (tmp_path / "root" / "README.md").write_text(head)
    with pytest.raises(DataError, match="which is outside the folder"):
        make_copy(entry, tmp_path / "root", tmp_path / "out")


def test_a_folder_that_is_no_copy_or_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    entry = read_benchmarks()["mme"]
    with pytest.raises(DataError, match=r"has no benchmark\.json.*vl3 eval data mme --root DIR --out URI"):
        read_copy(tmp_path, entry)
    (tmp_path / "benchmark.json").write_text(json.dumps({"benchmark": "gqa"}))
    with pytest.raises(DataError, match="is a copy of 'gqa', not of 'mme'"):
        read_copy(tmp_path, entry)
