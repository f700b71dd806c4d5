"""The curation workflow as a user starts it: images and videos in, one corpus out that a training run takes."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Runner
from tests.support.chat_server import Asked, ChatServer, chat_server
from tests.support.curation import file_of, photo, write_lines
from tests.support.moving_pictures import sliding, texture, write_video
from tests.support.video_pairs import PAIRS
from vl3.data.corpus import read_corpus
from vl3.data.sample.records import Record, read_annotations
from vl3.store.reference import Reference
from vl3.system.uris import file_path


def answer(asked: Asked) -> str:
    """A caption, four pairs, and a second answer that agrees with three of them."""
    if "Write questions" in asked.text:
        return json.dumps({"pairs": PAIRS})
    if "Answer in one short sentence" in asked.text:
        question = asked.text.rpartition("Question: ")[2]
        return next(one["answer"] for one in PAIRS if one["question"] == question).replace("A dog", "A cat")
    return (
        "different"
        if "say the same" in asked.text
        else "A red pattern slides slowly and steadily across the whole picture, from the left edge to the right one."
    )


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Forty images, of which two are equal and one is damaged; a video that moves and one that is measured on."""
    folder = tmp_path / "my data"
    images = [(f"{number}.png", file_of(photo(number)), f"A caption with the number {number}.") for number in range(38)]
    images += [("twice.png", images[0][1], "Again."), ("damaged.png", images[1][1][:300], "Cut.")]
    write_lines(folder, images)
    write_video(folder / "videos" / "moves.mp4", sliding(texture(1, (250, 60, 60)), 3, 1))
    write_video(folder / "videos" / "measured.mp4", sliding(texture(2, (60, 60, 250)), 3, 1))
    turns = [{"from": "human", "value": "<video>\nWhat moves?"}, {"from": "gpt", "value": "A pattern."}]
    line = {"id": "h", "video": "videos/measured.mp4", "category": "general_video", "conversations": turns}
    (folder / "annotations" / "heldout.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def runner_of(folder: Path, data: Path, server: ChatServer, *overrides: str) -> Runner:
    endpoint = {"url": server.url, "model": "tiny", "version": "1", "timeout_seconds": 300, "tries": 2}
    given = [f"videos={json.dumps({'captioner': endpoint})}", *overrides]
    return Runner(folder, ["--workflow", "curate", "--data", str(data), *(f"--set={one}" for one in given)])


def output(runner: Runner, task: str, name: str) -> Path:
    (record,) = (runner.folder / "artifacts" / "steps" / task).glob("*.json")
    return file_path(Reference.from_dict(json.loads(record.read_text())["outputs"][name]).uri)


def test_images_and_videos_become_one_corpus(collection: Path, tmp_path: Path) -> None:
    with chat_server() as server:
        server.answer = answer
        runner = runner_of(tmp_path / "runs" / "one", collection, server, "steps.aesthetic.minimum=-100")
        done = runner.run()
        assert done.returncode == 0, done.stderr
        asked = len(server.asked)
        again = runner_of(tmp_path / "runs" / "one", collection, server, "steps.aesthetic.minimum=-100").run()
        assert again.returncode == 0, again.stderr
        assert len(server.asked) == asked == 1 + 1 + 4 + 1  # caption, pairs, second answers, one comparison
    assert re.search(r"images kept; videos read: 1; handed over: .*video_synthesis 2", done.stdout)

    decisions = pq.read_table(output(runner, "curate-images", "curation") / "decisions").to_pylist()
    ends = {one["where"].rpartition(" ")[2]: (one["status"], one["step"]) for one in decisions}
    assert ends["images/twice.png"] == ("dropped", "equal")
    assert ends["images/damaged.png"] == ("failed", "facts")
    assert ends["images/0.png"][0] == "kept"

    corpus = output(runner, "validate-curation", "corpus") / "corpus.yaml"
    folders = {name: file_path(uri) for name, uri in read_corpus(corpus.as_uri()).items()}
    assert sorted(folders) == ["syn_detailed", "syn_short", "video_synthesis"]
    found = {
        name: list(read_annotations(one / "annotations" / "train.jsonl", "train")) for name, one in folders.items()
    }
    for name, records in found.items():
        assert records
        for record in records:
            assert isinstance(record, Record)
            assert all((folders[name] / path).is_file() for path in record.media_paths)
    caption, pairs = found["video_synthesis"]
    assert (
        caption.answer
        == "A red pattern slides slowly and steadily across the whole picture, from the left edge to the right one."
    )
    assert [turn.text for turn in pairs.turns if turn.role == "assistant"] == [one["answer"] for one in PAIRS[:3]]

    page = (runner.folder / "report" / "report.html").read_text()
    assert "videos/moves.mp4 from 0 to" in page
    assert "measured.mp4" not in page
    assert "left out: pair: not agreed" in page


def test_videos_alone_can_be_curated(collection: Path, tmp_path: Path) -> None:
    with chat_server() as server:
        server.answer = answer
        options = [f"--set=videos.captioner.url={server.url}", "--set=videos.workers=1"]
        runner = Runner(
            tmp_path / "runs" / "one",
            ["--workflow", "curate", "--recipe", "video_synthesis", "--data", str(collection), *options],
        )
        done = runner.run()
    assert done.returncode == 0, done.stderr
    assert "0 of 0 images kept; videos read: 1; handed over: video_synthesis 2" in done.stdout
    corpus = output(runner, "validate-curation", "corpus") / "corpus.yaml"
    assert list(read_corpus(corpus.as_uri())) == ["video_synthesis"]
