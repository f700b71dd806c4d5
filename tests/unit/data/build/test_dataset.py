"""Building datasets: exact counts, refused lines, splits, and what a killed or crashing build leaves."""

import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import random
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support.line_mutations import mutate, valid_lines, write_media
from tests.support.samples import conversation, grey_frames, image_bytes, video_bytes
from vl3.data.build import executors
from vl3.data.build.dataset import build_dataset
from vl3.data.build.index import DatasetIndex, read_summary
from vl3.data.build.shards import ShardReader
from vl3.data.plan.samples import SizeRule, read_samples
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.prepare import PrepareSettings, prepare_sample
from vl3.errors import DataError, StorageError

BAD_KINDS = ["missing_file", "no_turns", "no_answer", "tags", "outside_folder", "undecodable", "json", "times"]


@pytest.fixture
def build(tokenizer, config, tmp_path, monkeypatch):
    """Builds a data folder with one worker and DiffFP, and opens the index."""

    def run(folder: Path, *, prune=keep_mask, name="dataset", workers=1, timeout=60.0, progress=None, **changes):
        monkeypatch.setattr(executors, "SAMPLE_TIMEOUT_SECONDS", timeout)
        summary = build_dataset(
            folder,
            tmp_path / name,
            config=dataclasses.replace(config, **changes),
            tokenizer=tokenizer,
            prune=prune,
            workers=workers,
            progress=progress,
        )
        return summary, DatasetIndex.read(tmp_path / name)

    return run


@pytest.fixture
def failing_pruners(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "support"))
    import failing_pruners

    return failing_pruners


def clip(*levels: int) -> bytes:
    return video_bytes([frame for frame in grey_frames(levels) for _ in range(2)], fps=2)


def video_line(path: str, name: str) -> dict:
    return {"id": name, "video": [path], "conversations": conversation("<video> What?", "It stays.")}


@pytest.fixture
def mixed_folder(data_folder):
    stream = [{"role": "user", "content": "Say when.", "time": 0.0}, {"role": "assistant", "content": "a", "time": 2.0}]
    train = [
        {"image": ["a.png"], "conversations": conversation("<image> What?", "A circle.")},
        {"image": ["a.png", "b.jpg"], "conversations": conversation("<image><image> Which?", "The second.")},
        {"conversations": conversation("Write 42.", "42.")},
        {**video_line("v.mp4", "v"), "category": "general_video"},
        {"stream": True, "video": ["v.mp4"], "start_time": 0.0, "end_time": 4.0, "conversation": stream},
    ]
    files = {"a.png": image_bytes(60, 100), "b.jpg": image_bytes(40, 30, suffix="jpg"), "v.mp4": clip(50, 50, 120, 9)}
    heldout = [{"image": ["b.jpg"], "conversations": conversation("What?", "B."), "chance": 0.25}]
    return data_folder(train=train, heldout=heldout, files=files)


def planned_sizes(index, settings):
    """What the plan takes for the size of each training sample, by its row."""
    rule = SizeRule(
        image_merge_size=settings.image_merge_size,
        difffp=settings.difffp,
        prune_before_encoder=False,
    )
    table = read_samples([index.folder], rule)
    return dict(zip(table.places["row"].tolist(), table.sizes, strict=True))


def test_counts_are_exactly_what_prepare_yields(build, mixed_folder, tokenizer, config):
    summary, index = build(mixed_folder)
    assert (summary.lines, summary.samples, summary.problems) == (6, 6, {})
    reader = ShardReader(index.folder, index)
    for image_merge, difffp in itertools.product((1, 2), (False, True)):
        settings = PrepareSettings(image_merge_size=image_merge, video_merge_size=2, difffp=difffp, data=config)
        sizes = planned_sizes(index, settings)
        assert len(sizes) == 5
        for row, size in sizes.items():
            record, media = reader.read(row)
            sample = prepare_sample(record, media, tokenizer, settings, keep_mask)
            assert len(sample.input_ids_T) == size["length_tokens"]
            assert len(sample.keep_M) == size["visual_tokens"]
            assert (sample.labels_T >= 0).sum() == index.column("supervised_tokens")[row]


def test_the_row_of_a_sample_has_its_facts(build, mixed_folder):
    _, index = build(mixed_folder)
    video = index.row(3)
    assert (video["sample_id"], video["where"], video["category"]) == (
        "v",
        "annotations/train.jsonl:4",
        "general_video",
    )
    assert (video["num_frames"], video["duration_seconds"], video["source_fps"]) == (4, 4.0, 2.0)
    assert [video[f"video_tokens_m{merge}"] for merge in (1, 2)] == [16, 16]
    assert [video[f"kept_tokens_m{merge}"] for merge in (1, 2)] == [13, 13]
    two = index.row(1)
    assert (two["num_images"], two["min_side_px"], two["max_side_px"]) == (2, 30, 100)
    assert two["aspect_ratio"] == pytest.approx(100 / 60)
    heldout = index.row(5)
    assert (heldout["split"], heldout["chance"]) == ("heldout", 0.25)
    assert heldout["warning"] == "no tag for the 1 media file(s), so it was put before the first turn"
    facts = ("turns_alternate", "tags_match", "timestamps_ordered", "boxes_in_range", "path_inside", "media_present")
    assert all(heldout[fact] is True for fact in (*facts, "media_decodable"))
    assert index.usable_rows("heldout").tolist() == [5]


def test_bytes_do_not_depend_on_the_workers(build, mixed_folder, monkeypatch):
    monkeypatch.setattr("vl3.data.build.units.SAMPLES_PER_SHARD", 2)
    digests = []
    for workers in (1, 2):
        _, index = build(mixed_folder, name=f"by{workers}", workers=workers)
        files = sorted(index.folder.iterdir())
        digests.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files})
    assert digests[0] == digests[1]
    assert list(digests[0]) == [
        "index.parquet",
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
        "summary.json",
    ]


def test_the_eight_bad_lines_have_eight_reasons(build, shared_media, data_folder):
    names = ("images/cat.jpg", "videos/nasa_13013.mp4", "videos/demo_1.mp4", "annotations/train.jsonl")
    lines = (shared_media / "annotations" / "bad.jsonl").read_text().splitlines()
    folder = data_folder(train=lines, files={})
    for name in names[:3]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((shared_media / name).read_bytes())
    summary, index = build(folder)
    table = index.table.to_pydict()
    assert summary.samples == 0
    assert table["problem_kind"] == BAD_KINDS
    assert table["where"] == [f"annotations/train.jsonl:{number}" for number in range(1, 9)]
    assert len(set(table["problem"])) == 8
    assert table["media_present"] == [False, None, None, None, None, True, None, None]
    assert table["path_inside"][4] is False
    assert table["media_decodable"][5] is False
    assert table["timestamps_ordered"][7] is False
    assert not index.is_usable.any()


def test_own_bad_files_get_the_same_reasons(build, data_folder):
    image = {"image": ["a.png"], "conversations": conversation("<image> What?", "A.")}
    train = [
        image,
        {**image, "image": ["none.png"]},
        {**image, "image": ["../outside.png"]},
        {**image, "image": ["annotations/train.jsonl"]},
        {**image, "image": ["cut.png"]},
        video_line("cut.mp4", "cut"),
        {"conversations": conversation("word " * 700, "A.")},
        {**image, "id": "train-1"},
        "{broken",
    ]
    files = {"a.png": image_bytes(56, 56), "cut.png": image_bytes(56, 56)[:900], "cut.mp4": clip(9, 99, 200)[:700]}
    summary, index = build(data_folder(train=train, files=files))
    table = index.table.to_pydict()
    assert table["problem_kind"] == [
        None,
        "missing_file",
        "outside_folder",
        "undecodable",
        "undecodable",
        "undecodable",
        "too_long",
        "duplicate",
        "json",
    ]
    assert summary.problems == {
        "duplicate": 1,
        "json": 1,
        "missing_file": 1,
        "outside_folder": 1,
        "too_long": 1,
        "undecodable": 3,
    }
    assert table["problem"][1].startswith("media file 'none.png' does not exist in the data folder.")
    assert table["problem"][4].startswith("cut.png: the image (900 bytes) cannot be decoded")
    assert table["problem"][5].startswith("cut.mp4: the file cannot be opened as a video")
    assert table["problem"][7] == (
        "id 'train-1' is already used at annotations/train.jsonl:1. Give each sample its own id."
    )
    assert index.usable_rows("train").tolist() == [0]


def test_a_sample_above_the_vision_budget_is_too_long(build, data_folder):
    files = {"v.mp4": clip(*range(40, 200, 10))}
    _, index = build(data_folder(train=[video_line("v.mp4", "v")], files=files), visual_budget_tokens=60)
    assert index.row(0)["problem_kind"] == "too_long"
    assert index.row(0)["problem"].startswith("the sample has 64 vision tokens at its smallest, a sample may have 60")


@pytest.mark.parametrize(
    ("prune", "reason"),
    [
        ("crash_on_dark", "the decoder was killed by signal 11"),
        ("hang_on_dark", "the decoder did not finish within 2 s"),
    ],
)
def test_a_decoder_that_dies_or_hangs_costs_only_its_sample(build, data_folder, failing_pruners, prune, reason):
    train = [video_line(f"{name}.mp4", name) for name in ("light", "dark", "other")]
    files = {"light.mp4": clip(200, 210), "dark.mp4": clip(9, 10), "other.mp4": clip(150, 160)}
    begun = []
    folder = data_folder(train=train, files=files)
    _, index = build(
        folder,
        prune=getattr(failing_pruners, prune),
        timeout=2.0,
        progress=lambda done, total: begun.append((done, total)),
    )
    assert index.column("sample_id")[index.is_usable].tolist() == ["light", "other"]
    dark = index.row(1)
    assert (dark["problem_kind"], dark["media_decodable"], dark["shard"]) == ("undecodable", False, None)
    assert dark["problem"].startswith(reason)
    assert begun[-1][1] == 3
    assert ShardReader(index.folder, index).read(2)[0].sample_id == "other"


def test_a_share_is_held_out_by_hash_and_files_stay_together(build, data_folder):
    files = {f"{number}.png": image_bytes(20, 20, seed=number) for number in range(12)}
    train = [
        {"id": f"{number}-{turn}", "image": [f"{number}.png"], "conversations": conversation("<image> What?", "A.")}
        for turn in "ab"
        for number in range(12)
    ]
    folder = data_folder(train=train, files=files)
    summary, index = build(folder, holdout_fraction=0.3)
    assert summary.heldout_from == "hash"
    groups = {split: set(index.column("media_group")[index.usable_rows(split)]) for split in ("train", "heldout")}
    assert groups["train"].isdisjoint(groups["heldout"])
    assert len(groups["train"] | groups["heldout"]) == 12
    assert 1 <= len(groups["heldout"]) <= 7
    _, again = build(folder, holdout_fraction=0.3, name="again")
    assert again.column("split").tolist() == index.column("split").tolist()


def test_what_shares_a_file_by_content_is_in_one_split(build, data_folder):
    """One picture by two spellings, under another name, over a link, and within a pair."""
    pictures = [image_bytes(20, 20, seed=number) for number in range(24)]
    files = {f"m/{number}.png": picture for number, picture in enumerate(pictures)}
    files |= {f"copies/of-{number}.png": picture for number, picture in enumerate(pictures)}
    train = []
    for number in range(0, 24, 2):
        pair, other = f"m/{number}.png", f"m/{number + 1}.png"
        spelt = [pair, f"./{pair}", f"m/../{pair}", f"copies/of-{number}.png", f"link-{number}.png", other]
        train += [{"image": [path], "conversations": conversation("<image> What?", path)} for path in spelt]
        train.append({"image": [other, pair], "conversations": conversation("<image><image> Same?", "No.")})
    folder = data_folder(train=train, files=files)
    for number in range(0, 24, 2):
        (folder / f"link-{number}.png").symlink_to(folder / f"m/{number}.png")
    summary, index = build(folder, holdout_fraction=0.3)
    assert (summary.samples, summary.heldout_from) == (84, "hash")
    splits = index.column("split").reshape(12, 7)
    assert all(len(set(group)) == 1 for group in splits.tolist())
    assert 0 < summary.splits["heldout"] < 60
    held_out, trained = (
        {digest for row in index.usable_rows(split) for digest in index.row(int(row))["media_sha256"].split()}
        for split in ("heldout", "train")
    )
    assert held_out.isdisjoint(trained)
    assert len(held_out | trained) == 24


def test_keys_that_are_not_read_are_counted(build, data_folder):
    known = {"conversations": conversation("Hi", "Yo")}
    train = [{**known, "licence": "x", "a,\n b": 1}, known, {**known, "licence": None}]
    summary, index = build(data_folder(train=train, files={}))
    assert summary.unknown_keys == {"licence": 2, "a,\\n b": 1}
    assert index.column("unknown_keys").tolist() == ["licence, a,\\n b", None, "licence"]
    assert read_summary(index.folder)["unknown_keys"] == summary.unknown_keys


def test_a_time_after_the_end_of_the_video_is_refused(build, data_folder):
    stream = {"stream": True, "video": ["v.mp4"], "start_time": 0}
    said = [{"role": "user", "content": "Say", "time": 0}, {"role": "assistant", "content": "A", "time": 3}]
    late = [said[0], {**said[1], "time": 50}]
    answers = ["0.0-4.9 s", "400.0-950.0 s", "1-6 seconds"]
    train = [
        {**stream, "end_time": 4.9, "conversation": said},
        {**stream, "end_time": 1e300, "conversation": said},
        {**stream, "end_time": 60, "conversation": late},
        *({**video_line("v.mp4", text), "conversations": conversation("<video> When?", text)} for text in answers),
        {"video": ["v.mp4"], "conversations": [*conversation("When?", "9-10 s"), *conversation("And?", "Yes.")]},
    ]
    _, index = build(data_folder(train=train, files={"v.mp4": clip(50, 50, 120, 9)}))
    kinds = index.column("problem_kind").tolist()
    assert kinds == [None, "times", "times", None, "times", "times", "times"]
    assert index.row(1)["problem"] == "end_time is at 1e+300 s, but the video ends at 4.00 s. Correct the times."
    assert index.row(4)["problem"].startswith("the answer '400.0-950.0 s' is at 950 s, but the video ends at 4.00 s")


def test_a_name_that_another_line_gets_by_its_number_is_refused_where_it_is_written(build, data_folder):
    line = {"conversations": conversation("Hi", "Yo")}
    train = [{**line, "id": "train-2"}, line, {**line, "id": 5}, {**line, "id": "5"}, {**line, "id": "train-5"}]
    _, index = build(data_folder(train=train, files={}))
    assert index.column("problem_kind").tolist() == ["duplicate", None, None, "duplicate", None]
    assert "'train-2' is already used at annotations/train.jsonl:2." in index.row(0)["problem"]


def test_mutated_lines_cost_themselves_alone(build, tmp_path):
    """A short form of `python -m benchmarks.mutated_lines`."""
    rng, kinds = random.Random(5), valid_lines()
    good = [json.dumps({**line, "id": f"good-{number}"}).encode() for number, line in enumerate(kinds)]
    bad = [mutate(rng.choice(kinds), rng) for _ in range(70)]
    write_media(tmp_path / "data")
    (tmp_path / "data" / "annotations").mkdir()
    rows = []
    for name, lines in (
        ("alone", good),
        ("mixed", [line for ten in zip(good, *[iter(bad)] * 10, strict=False) for line in ten]),
    ):
        (tmp_path / "data" / "annotations" / "train.jsonl").write_bytes(b"\n".join(lines))
        _, index = build(tmp_path / "data", name=name)
        table = index.table.drop_columns(["where", "offset_bytes", "sha256"]).to_pylist()
        rows.append([row for row in table if row["sample_id"].startswith("good-")])
        assert not any("the decoder" in row["problem"] for row in table if row["problem"])
    assert rows[0] == rows[1]
    assert [row["problem"] for row in rows[0]] == [None] * len(good)


def test_refused_lines_are_listed_in_a_file(build, data_folder):
    _, index = build(data_folder(train=[{"conversations": conversation("Hi", "Yo")}, "{broken", "[]"], files={}))
    listed = [json.loads(line) for line in (index.folder / "refused.jsonl").read_text().splitlines()]
    assert [(line["where"], line["kind"], line["id"]) for line in listed] == [
        ("annotations/train.jsonl:2", "json", "train-2"),
        ("annotations/train.jsonl:3", "structure", "train-3"),
    ]
    assert [line["reason"] for line in listed] == index.column("problem").tolist()[1:]


def test_one_annotation_file_can_be_built_alone(tokenizer, config, mixed_folder, tmp_path):
    other = mixed_folder / "annotations" / "some.jsonl"
    other.write_text((mixed_folder / "annotations" / "heldout.jsonl").read_text() * 2 + "{broken\n")
    summary = build_dataset(
        mixed_folder,
        tmp_path / "one",
        config=config,
        tokenizer=tokenizer,
        prune=keep_mask,
        workers=1,
        annotations=other,
    )
    assert (summary.lines, summary.samples, summary.heldout_from) == (3, 2, "none")
    wheres = DatasetIndex.read(tmp_path / "one").column("where").tolist()
    assert wheres == [f"annotations/some.jsonl:{number}" for number in (1, 2, 3)]


def test_an_existing_folder_is_not_overwritten(build, mixed_folder, tmp_path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "precious.txt").write_text("keep")
    with pytest.raises(StorageError, match=r"dataset exists and is not empty\. It is never"):
        build(mixed_folder)


def test_annotations_without_lines_are_refused(build, data_folder):
    with pytest.raises(DataError, match=r"train\.jsonl has no lines"):
        build(data_folder(train=[], files={}))


def test_the_summary_tells_how_the_dataset_was_made(build, mixed_folder):
    _, index = build(mixed_folder)
    summary = read_summary(index.folder)
    assert summary["splits"] == {"heldout": 1, "train": 5}
    assert summary["config"]["max_length_tokens"] == 640
    assert (summary["shards"], summary["heldout_from"], summary["warnings"]) == (1, "annotations", 1)


def _build_forever(folder: Path, out: Path, config, tokenizer, hang) -> None:
    build_dataset(folder, out, config=config, tokenizer=tokenizer, prune=hang, workers=1)


def test_a_killed_build_leaves_nothing_that_looks_whole(
    build, data_folder, failing_pruners, tokenizer, config, tmp_path
):
    folder = data_folder(train=[video_line("dark.mp4", "dark")], files={"dark.mp4": clip(9, 10)})
    out = tmp_path / "dataset"
    process = multiprocessing.get_context("fork").Process(
        target=_build_forever, args=(folder, out, config, tokenizer, failing_pruners.hang_on_dark)
    )
    process.start()
    partial = out.with_name("dataset.partial")
    deadline = time.monotonic() + 30
    while not (partial / "shard-000000.tar").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert workers
    assert psutil.wait_procs(workers, timeout=10)[1] == [], "a hanging worker outlived its parent"
    assert not out.exists()
    assert partial.exists()
    with pytest.raises(DataError, match=r"is not a complete dataset: summary\.json, which is written last, is"):
        DatasetIndex.read(partial)
    summary, _ = build(folder)
    assert summary.samples == 1
    assert not partial.exists()


def test_real_media_build_whole(build, shared_media):
    summary, index = build(shared_media, workers=2, holdout_fraction=0.1)
    assert (summary.lines, summary.samples, summary.problems) == (14, 14, {})
    assert summary.splits["heldout"] >= 1
    assert np.all(index.column("text_tokens") > 0)
    assert index.row(8)["num_frames"] == 10


def test_counts_of_mixed_media_are_exact_at_every_image_merge(build, data_folder, tokenizer, config, tmp_path):
    """Images and clips share a budget too small for them, so that the tokens of each depend on the image merge."""
    frames = {f"f/{number}.png": image_bytes(120, 90, seed=number) for number in range(4)}
    turns = [*conversation("<video> <image> <video>?", "A."), *conversation("And <video>?", "2.0-3.0 s")]
    videos = ["v.mp4", {"path": "v.mp4", "start": 1.0, "end": 3.0}, {"frames": "f", "fps": 1.0}]
    folder = data_folder(
        train=[{"image": ["a.png"], "video": videos, "conversations": turns}, video_line("v.mp4", "plain")],
        files={"a.png": image_bytes(300, 200), "v.mp4": clip(10, 80, 160, 240), **frames},
    )
    _, index = build(folder, visual_budget_tokens=90)
    assert index.is_usable.all()
    record, media = ShardReader(tmp_path / "dataset", index).read(0)
    assert record.clips[-1].frames == tuple(frames)
    limits = dataclasses.replace(config, visual_budget_tokens=90)
    for image_merge, difffp in itertools.product((1, 2), (False, True)):
        settings = PrepareSettings(image_merge_size=image_merge, video_merge_size=2, difffp=difffp, data=limits)
        sample = prepare_sample(record, media, tokenizer, settings, keep_mask)
        size = planned_sizes(index, settings)[0]
        assert size["length_tokens"] == len(sample.input_ids_T)
        assert size["visual_tokens"] == len(sample.keep_M)
    counts = [index.row(0)[f"{kind}_tokens_m{merge}"] for merge in (1, 2) for kind in ("image", "video")]
    assert counts == [54, 10, 6, 48]
