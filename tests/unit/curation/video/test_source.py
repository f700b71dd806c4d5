"""The videos of a collection: which there are, in a folder and in a bucket, without those that are measured on."""

import gzip
import json
from pathlib import Path

import pytest

from tests.support.training import s3_endpoint, s3_root  # noqa: F401  # fixtures
from vl3.curation.source import held_out_records
from vl3.curation.video.source import find_videos, local_video
from vl3.data.sample.problems import SampleProblem
from vl3.errors import DataError
from vl3.store.objects import open_store
from vl3.system.uris import file_uri

FILES = ("videos/a.mp4", "videos/b.mkv", "videos/deep/c.mp4", "other/d.mp4")
MEASURED = {
    "id": "h",
    "video": {"path": "videos/b.mkv", "start": 0, "end": 2},
    "category": "general_video",
    "conversations": [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "It."}],
}


@pytest.fixture(params=["folder", "bucket"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    uri = file_uri(tmp_path / "data") if request.param == "folder" else request.getfixturevalue("s3_root")
    store = open_store(uri)
    for name in FILES:
        store.write(name, [name.encode()])
    return uri


def test_names_fit_folder_by_folder(collection: str) -> None:
    assert find_videos(collection, "videos/*") == ["videos/a.mp4", "videos/b.mkv"]
    assert find_videos(collection, "*/*.mp4") == ["other/d.mp4", "videos/a.mp4"]
    assert find_videos(collection, "videos/deep/c.mp4") == ["videos/deep/c.mp4"]
    with pytest.raises(DataError, match=r"has no video 'clips/\*'\. Correct videos\.pattern"):
        find_videos(collection, "clips/*")


@pytest.mark.parametrize("name", ["heldout.jsonl", "heldout.jsonl.gz"])
def test_what_is_measured_on_is_left_out(collection: str, name: str) -> None:
    text = (json.dumps(MEASURED) + "\nnonsense\n").encode()
    open_store(collection).write(f"annotations/{name}", [gzip.compress(text) if name.endswith("gz") else text])
    assert find_videos(collection, "videos/*") == ["videos/a.mp4"]
    assert [record.sample_id for record in held_out_records(collection)] == ["h"]
    with pytest.raises(DataError, match="besides the 1 that are measured on"):
        find_videos(collection, "videos/b.*")


def test_damaged_held_out_lines_are_not_passed_over(collection: str) -> None:
    packed = gzip.compress((json.dumps(MEASURED) + "\n").encode())
    open_store(collection).write("annotations/heldout.jsonl.gz", [packed[: len(packed) // 2]])
    with pytest.raises(DataError, match="what is measured on could not be kept out of training"):
        find_videos(collection, "videos/*")


def test_a_video_is_a_file_here(collection: str) -> None:
    with local_video(collection, "videos/a.mp4") as path:
        assert path.name == "a.mp4"
        assert path.read_bytes() == b"videos/a.mp4"


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data" / "videos").mkdir(parents=True)
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (tmp_path / "data" / "videos" / "a.mp4").symlink_to(tmp_path / "secret.mp4")
    uri = file_uri(tmp_path / "data")
    assert find_videos(uri, "videos/*") == ["videos/a.mp4"]
    with pytest.raises(SampleProblem, match="outside"), local_video(uri, "videos/a.mp4"):
        pass
