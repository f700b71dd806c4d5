"""Damaged pictures and videos through the build and the loader's reading; benchmarks/mutated_media.py tries 600."""

import pytest

from tests.support.ffmpeg import is_broken, needs_ffmpeg
from tests.support.mutations import PICTURES, VIDEOS, make_intact, mutated
from tests.support.samples import conversation
from vl3.data.build import worker
from vl3.data.build.index import IndexRow
from vl3.data.build.shards import ShardWriter, shard_name
from vl3.data.build.units import Annotations, find_units
from vl3.data.build.work import Work
from vl3.data.build.worker import BuildSetup, UnitJob, write_samples
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.prepare import PrepareSettings, prepare_sample
from vl3.data.sample.problems import ProblemKind
from vl3.data.sample.records import read_annotations
from vl3.errors import DataError


def line_of(path: str) -> dict:
    kind, tag = ("image", "<image>") if "picture" in path else ("video", "<video>")
    return {"id": path, kind: [path], "conversations": conversation(f"{tag} What?", "A pattern.")}


@pytest.fixture
def rows_of(tokenizer, config, tmp_path):
    """Runs the worker's part of a build over a data folder, in this process: an exception would end the test."""

    def run(folder) -> list[IndexRow]:
        lines = Annotations(uri=(folder / "annotations" / "train.jsonl").as_uri(), split="train", name="train.jsonl")
        (unit,) = find_units([lines])
        setup = BuildSetup(
            source_uri=folder.as_uri(),
            work=Work(tmp_path.as_uri()),
            config=config,
            tokenizer=tokenizer,
            prune=keep_mask,
        )
        with ShardWriter(tmp_path / shard_name(0)) as writer:
            return write_samples(UnitJob(unit=unit, poisoned={}), setup, writer)

    return run


@needs_ffmpeg
def test_damage_costs_the_file_and_what_is_kept_is_good(rows_of, data_folder, tokenizer, config, tmp_path):
    intact = make_intact(tmp_path / "intact", seconds=1)
    contents = list(intact.values())
    files = {
        f"{number:02d}-{name}": mutated(data, contents[(7 * number) % len(contents)], f"{number}")
        for number, (name, data) in enumerate(intact.items())
    }
    files |= {f"intact-{name}": data for name, data in intact.items()}
    assert len(files) == 2 * (len(VIDEOS) + len(PICTURES))
    folder = data_folder(train=[line_of(name) for name in files], files=files)
    rows = rows_of(folder)
    refused = {row.sample_id: row.problem_kind for row in rows if row.problem}
    assert set(refused.values()) <= {ProblemKind.UNDECODABLE.value, ProblemKind.TIMES.value}
    assert not [name for name in refused if name.startswith("intact")]
    assert len(refused) >= 15
    assert [row.sample_id for row in rows if not row.problem and is_broken(folder / row.sample_id)] == []
    settings = PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=True, data=config)
    for record in read_annotations(folder / "annotations" / "train.jsonl", "train"):
        media = {record.sample_id: files[record.sample_id]}
        if record.sample_id not in refused:
            prepare_sample(record, media, tokenizer, settings, keep_mask)
            continue
        remedy = "drop the sample"
        try:
            prepare_sample(record, media, tokenizer, settings, keep_mask)
        except DataError as error:
            remedy = str(error)
        assert "drop the sample" in remedy or "Correct" in remedy


def test_media_that_need_too_much_memory_are_refused(rows_of, data_folder, monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(worker, "measure_sample", fail)
    (row,) = rows_of(data_folder(train=[line_of("picture.png")], files={"picture.png": b"x"}))
    assert row.problem_kind == ProblemKind.UNDECODABLE.value
    assert row.problem == (
        "its media need more memory than 1024 MiB. Replace the file with a smaller one or drop the sample."
    )


def test_a_large_file_is_stored_and_read_by_its_place(rows_of, data_folder, monkeypatch, tmp_path, tokenizer, config):
    from tests.support.samples import grey_frames, video_bytes
    from vl3.data.build import shards
    from vl3.data.sample import media

    data = video_bytes(grey_frames(range(20, 220, 10)), fps=4)
    folder = data_folder(train=[line_of("v.mp4")], files={"v.mp4": data})
    (small,) = rows_of(folder)
    monkeypatch.setattr(media, "WHOLE_BYTES", 100)
    monkeypatch.setattr(shards, "WHOLE_BYTES", 100)
    (large,) = rows_of(folder)
    assert (small.problem, large.problem) == (None, None)
    assert (small.sha256, small.length_bytes) == (large.sha256, large.length_bytes)
