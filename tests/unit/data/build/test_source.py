"""Data in a bucket: read by the file when a sample needs it, with the same refusals as a folder."""

import hashlib

import pytest

from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.samples import conversation, grey_frames, image_bytes, video_bytes
from tests.support.training import s3_endpoint, s3_root  # noqa: F401  # fixtures
from vl3.data.build import source
from vl3.data.build.dataset import build_dataset
from vl3.data.build.index import DatasetIndex
from vl3.data.build.source import BucketSource, open_source, source_digest
from vl3.data.sample.difffp import keep_mask
from vl3.errors import ConfigError, DataError, StorageError
from vl3.store.objects import open_s3


@pytest.fixture
def bucket(s3_root, data_folder):  # noqa: F811
    """Puts a data folder into the bucket; returns folder and URI."""

    def put(**content):
        folder = data_folder(**content)
        store = open_s3(f"{s3_root}/data")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                store.put_file(path, str(path.relative_to(folder)))
        return folder, f"{s3_root}/data"

    return put


@pytest.fixture
def build(tokenizer, config, tmp_path):
    def run(data, name):
        build_dataset(data, tmp_path / name, config=config, tokenizer=tokenizer, prune=keep_mask, workers=1)
        return tmp_path / name

    return run


def digests(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def asks(path: str, name: str, tag: str = "image") -> dict:
    return {"id": name, tag: [path], "conversations": conversation(f"<{tag}> What?", "It.")}


@pytest.fixture
def content():
    clip = video_bytes(grey_frames([50, 50, 120, 9]), fps=2)
    files = {
        "a b.png": image_bytes(60, 100),
        "v.mp4": clip,
        **{f"frames/{n}.jpg": image_bytes(40, 30) for n in (2, 10)},
    }
    train = [asks("a b.png", "a"), asks("v.mp4", "v", "video"), asks("x/../a b.png", "again"), asks("none.png", "none")]
    train += [asks("../out.png", "out"), asks("x" * 2000, "long"), {"conversations": conversation("Say 1.", "1.")}]
    frames = {"video": {"frames": "frames", "fps": 1.0}, "conversations": conversation("<video> What?", "It.")}
    return {"train": [*train, frames], "files": files}


def test_a_bucket_gives_the_bytes_of_a_folder(bucket, build, content, monkeypatch):
    folder, uri = bucket(**content)
    by_folder, by_bucket = digests(build(folder, "by-folder")), digests(build(uri, "by-bucket"))
    rows = DatasetIndex.read(folder.parent / "by-bucket").column("problem_kind").tolist()
    assert rows[:3] == [None, None, None]
    assert rows[-2:] == [None, None]
    assert rows[3:6] == ["missing_file", "outside_folder", "missing_file"]
    shards = [name for name in by_folder if name.endswith(".tar")]
    assert {name: by_folder[name] for name in shards} == {name: by_bucket[name] for name in shards}


def test_a_large_file_goes_to_the_disk_and_is_gone_with_its_sample(bucket, build, content, monkeypatch):
    folder, uri = bucket(**content)
    monkeypatch.setattr(source, "WHOLE_BYTES", 1000)
    kept = []
    (record,) = [one for one in _records(uri) if one.sample_id == "v"]
    with open_source(uri).opened(record) as (_, media):
        kept = [media["v.mp4"].path]
        assert kept[0].read_bytes() == (folder / "v.mp4").read_bytes()
    assert not kept[0].exists()


def _records(uri):
    from vl3.data.build.units import find_annotations_of, find_units

    return [one for unit in find_units(find_annotations_of(uri, None)) for one in unit.read()]


def test_only_the_media_of_the_sample_are_read(bucket, content, s3_endpoint, monkeypatch):  # noqa: F811
    _, uri = bucket(**content)
    proxy = FaultProxy(int(s3_endpoint.rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    (record,) = [one for one in _records(uri) if one.sample_id == "a"]
    with proxy.fault(), open_source(uri).opened(record):
        assert [line.split("?")[0].rpartition("/")[2] for line in proxy.requests] == ["a%20b.png"]


def test_a_store_that_fails_ends_the_build_with_the_object(bucket, build, content, s3_endpoint, monkeypatch):  # noqa: F811
    _, uri = bucket(**content)
    proxy = FaultProxy(int(s3_endpoint.rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    with (
        proxy.fault(Fault("refuse", match="v.mp4", times=10_000, value="403 AccessDenied")),
        pytest.raises(StorageError, match=r"v\.mp4"),
    ):
        build(uri, "failing")


def test_the_digest_follows_what_is_in_the_bucket(bucket, content, tmp_path):
    _, uri = bucket(**content)
    before = source_digest(uri)
    assert source_digest(uri) == before
    (tmp_path / "more").write_bytes(b"more")
    open_s3(uri).put_file(tmp_path / "more", "more.png")
    assert source_digest(uri) != before


def test_two_annotation_files_of_a_split_are_refused(bucket, content, tmp_path):
    folder, uri = bucket(**content)
    open_s3(uri).put_file(folder / "annotations" / "train.jsonl", "annotations/train.jsonl.gz")
    with pytest.raises(DataError, match="only one can be read"):
        BucketSource(uri).annotations("train")


def test_another_scheme_is_refused():
    with pytest.raises(ConfigError):
        open_source("ftp://host/data").annotations("train")
