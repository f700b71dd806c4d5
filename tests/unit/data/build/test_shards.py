"""Tar shards: what is written is read back by byte range, and damage is noticed."""

import hashlib
import json
import tarfile

import pyarrow as pa
import pytest

from tests.support.samples import conversation, image_bytes
from vl3.data.build.index import SUMMARY_NAME, DatasetIndex, IndexRow, write_index
from vl3.data.build.shards import (
    ShardReader,
    ShardWriter,
    parse_sample,
    record_from_json,
    record_to_json,
    shard_name,
)
from vl3.data.sample.media import FileRange
from vl3.data.sample.records import Record, parse_record
from vl3.errors import DataError, StorageError


def record_of(data: dict, number: int) -> Record:
    return parse_record(json.dumps(data), where=f"annotations/train.jsonl:{number}", split="train")


@pytest.fixture
def dataset(tmp_path):
    """Two samples and a refused line, written by hand."""
    records = [
        record_of({"image": ["a.png", "sub/b.JPG"], "conversations": conversation("<image><image> x?", "y")}, 1),
        record_of({"conversations": conversation("Hi", "Grüße")}, 2),
    ]
    media = [{"a.png": image_bytes(8, 9), "sub/b.JPG": b"jpeg bytes"}, {}]
    rows = []
    with ShardWriter(tmp_path / shard_name(0)) as writer:
        for number, (record, files) in enumerate(zip(records, media, strict=True)):
            span = writer.write(f"{number:08d}", record, files)
            row = IndexRow(sample_id=record.sample_id, split="heldout", where=record.where, shard=span.shard)
            row.offset_bytes, row.length_bytes, row.sha256 = span.offset_bytes, span.length_bytes, span.sha256
            rows.append(row)
    rows.append(IndexRow(sample_id="bad", split="train", where="annotations/train.jsonl:3", problem="no turns"))
    write_index(tmp_path / "index.parquet", rows)
    (tmp_path / SUMMARY_NAME).write_text("{}")
    return tmp_path, records, media


def test_samples_come_back_with_the_split_of_the_index(dataset):
    folder, records, media = dataset
    reader = ShardReader(folder)
    record, files = reader.read(0)
    assert record.split == "heldout"
    assert record_to_json(record) == record_to_json(records[0])
    assert files == media[0]
    assert reader.read(1)[0].answer == "Grüße"


def test_the_shard_is_a_tar_of_webdataset_names(dataset):
    folder, _, _ = dataset
    with tarfile.open(folder / "shard-000000.tar") as archive:
        assert archive.getnames() == ["00000000.json", "00000000.0.png", "00000000.1.jpg", "00000001.json"]
        assert {member.mtime for member in archive.getmembers()} == {0}


def test_a_refused_line_has_no_sample(dataset):
    with pytest.raises(DataError, match=r"train.jsonl:3: the line was refused and has no sample \(no turns\)"):
        ShardReader(dataset[0]).read(2)


def test_a_flipped_byte_is_noticed(dataset):
    path = dataset[0] / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    reader = ShardReader(dataset[0])
    with pytest.raises(DataError, match=r"train.jsonl:1: its bytes in .*shard-000000.tar do not match the digest"):
        reader.read(0)
    assert reader.read(1)[0].sample_id == "train-2"


def test_a_missing_shard_is_named(dataset):
    (dataset[0] / "shard-000000.tar").unlink()
    with pytest.raises(DataError, match=r"shard-000000.tar cannot be read \(No such file"):
        ShardReader(dataset[0]).read(0)


def test_a_stream_survives_json():
    event = {"role": "assistant", "content": "Now.", "time": 4.5}
    data = {"stream": True, "video": ["v"], "start_time": 0, "end_time": 5, "conversation": [event]}
    record = record_of(data, 1)
    assert record_from_json(json.loads(json.dumps(record_to_json(record))), split="train") == record


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"shard-000000\.tar"):
        ShardWriter(tmp_path / "missing" / shard_name(0))


@pytest.mark.parametrize("shard", ["../precious.tar", "/etc/passwd", "sub/shard-000000.tar", "", "shard-000000.tar\0"])
def test_a_shard_outside_of_the_dataset_is_not_opened(dataset, tmp_path, shard):
    folder, _, _ = dataset
    (tmp_path.parent / "precious.tar").write_bytes((folder / shard_name(0)).read_bytes())
    table = DatasetIndex.read(folder).table
    names = pa.array([shard, *table.column("shard").to_pylist()[1:]], pa.string())
    forged = table.set_column(table.schema.get_field_index("shard"), "shard", names)
    with pytest.raises(DataError, match=r"train.jsonl:1: the index names the shard .*, which is no file of this"):
        ShardReader(folder, DatasetIndex(folder, forged)).read(0)


@pytest.mark.parametrize("content", [b"", b"noise" * 200, b"\0" * 1024])
def test_bytes_that_are_no_sample_are_said_to_be_none(dataset, content):
    folder, _, _ = dataset
    (folder / shard_name(1)).write_bytes(content)
    index = DatasetIndex.read(folder)
    facts = {"shard": shard_name(1), "offset_bytes": 0, "length_bytes": len(content)}
    facts["sha256"] = hashlib.sha256(content).hexdigest()
    rows = [index.row(number) | (facts if number == 0 else {}) for number in range(len(index))]
    table = pa.Table.from_pylist(rows, schema=index.table.schema)
    with pytest.raises(DataError, match=r"train.jsonl:1: its bytes in .* are no sample"):
        ShardReader(folder, DatasetIndex(folder, table)).read(0)


@pytest.mark.parametrize(
    ("start", "value"),
    [(124, b"00000777777\0"), (124, b"\x80" + bytes(2) + b"\x7f" + bytes(8)), (156, b"2"), (156, b"1"), (156, b"6")],
    ids=["long", "huge", "symbolic link", "link", "pipe"],
)
@pytest.mark.parametrize("is_large", [False, True], ids=["in memory", "by range"])
def test_a_member_that_leads_out_of_its_sample_is_refused(dataset, start, value, is_large):
    """Even if the digest is right: the bytes behind the sample are another's."""
    folder, _, _ = dataset
    path = folder / shard_name(0)
    data, row = bytearray(path.read_bytes()), DatasetIndex.read(folder).row(0)
    with tarfile.open(path) as archive:
        at = archive.getmembers()[1].offset
    data[at + start : at + start + len(value)] = value
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(data + bytes(1 << 20))
    part = FileRange(path=path, offset_bytes=0, length_bytes=row["length_bytes"])
    content = part if is_large else bytes(data[: row["length_bytes"]])
    with pytest.raises(DataError, match=r"row 0: its bytes in x are no sample"):
        parse_sample(content, where="row 0", place="x", split="train")
