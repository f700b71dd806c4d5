"""Units at a place: whole or not there, whoever made them, and in a bucket as in a folder."""

import hashlib

import pytest

from tests.support.training import s3_endpoint, s3_root  # noqa: F401  # fixtures
from vl3.data.build.work import PART_NAME, UNIT_NAME, MadeUnit, Work
from vl3.errors import StorageError
from vl3.store.manifest import FileEntry
from vl3.store.objects import open_store
from vl3.system.uris import file_uri

SHARD = "shard-000003.tar"


@pytest.fixture(params=["file", "s3"])
def work(request, tmp_path):
    if request.param == "file":
        return Work(file_uri(tmp_path / "work"))
    return Work(request.getfixturevalue("s3_root") + "/work")


def make(work: Work, shard: bytes = b"shard", part: bytes = b"part") -> MadeUnit:
    def entry(data: bytes) -> FileEntry:
        return FileEntry(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    made = MadeUnit(number=3, shard=entry(shard), part=entry(part))
    with work.scratch(3) as folder:
        (folder / SHARD).write_bytes(shard)
        (folder / PART_NAME).write_bytes(part)
        work.publish(folder, made)
    return made


def put(work: Work, name: str, data: bytes | None, tmp_path) -> None:
    """Damage a file of the unit; None deletes it."""
    store = open_store(f"{work.uri}/units/000003")
    store.delete(name)
    if data is not None:
        (tmp_path / "bytes").write_bytes(data)
        store.put_file(tmp_path / "bytes", name)


def test_a_unit_is_found_whole(work):
    assert work.find(3) is None
    made = make(work)
    assert work.find(3) == made == work.require(3)
    assert work.read_part(made) == b"part"
    assert open_store(work.uri).read(work.shard_key(3)) == b"shard"


def test_two_makers_of_a_unit_do_not_disturb_each_other(work):
    assert make(work) == make(work) == work.find(3)


@pytest.mark.parametrize("name", [SHARD, PART_NAME, UNIT_NAME])
@pytest.mark.parametrize("data", [None, b"", b"sha"])
def test_a_unit_that_is_damaged_is_not_there_and_is_made_again(work, name, data, tmp_path):
    made = make(work)
    put(work, name, data, tmp_path)
    assert work.find(3) is None
    make(work)
    assert work.find(3) == made


@pytest.mark.parametrize(
    "facts", [b"[]", b"{}", b'{"number": 4}', b'{"number": 3, "shard": {"size": 1}, "part": null}', b"\xff"]
)
def test_facts_that_are_no_facts_are_none(work, facts, tmp_path):
    make(work)
    put(work, UNIT_NAME, facts, tmp_path)
    assert work.find(3) is None


def test_a_unit_that_is_gone_or_damaged_at_the_merge_is_named(work, tmp_path):
    made = make(work)
    put(work, PART_NAME, b"trap", tmp_path)
    with pytest.raises(StorageError, match=r"units/000003/part\.parquet: the part of the index is damaged"):
        work.read_part(made)
    put(work, PART_NAME, None, tmp_path)
    with pytest.raises(StorageError, match=r"the part of the index is missing\. Start the build again"):
        work.read_part(made)
    put(work, UNIT_NAME, None, tmp_path)
    with pytest.raises(StorageError, match=r"units/000003: the unit was made and is gone"):
        work.require(3)


def test_units_of_another_build_are_removed_and_those_of_the_same_kept(work):
    assert not work.begin("one")
    made = make(work)
    assert work.begin("one")
    assert work.find(3) == made
    assert not work.begin("another")
    assert work.find(3) is None


def test_what_a_kill_left_is_removed(tmp_path):
    work = Work(file_uri(tmp_path / "work"))
    work.begin("one")
    left = tmp_path / "work" / "units" / ".000007-abc"
    left.mkdir(parents=True)
    (left / SHARD).write_bytes(b"half")
    work.begin("one")
    assert not left.exists()
