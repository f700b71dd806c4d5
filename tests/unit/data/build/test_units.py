"""Units of work: where their lines are, found in one pass."""

import gzip

import pytest

from vl3.data.build.units import Annotations, are_packed, find_units, unpack
from vl3.errors import DataError
from vl3.system.uris import file_uri


@pytest.fixture
def annotations(tmp_path):
    """Writes an annotation file."""

    def write(data: bytes, split="train"):
        path = tmp_path / f"{split}.jsonl"
        path.write_bytes(data)
        return Annotations(uri=file_uri(path), split=split, name=f"annotations/{split}.jsonl")

    return write


def line(number: int) -> bytes:
    turns = b'[{"from": "human", "value": "Say 1."}, {"from": "gpt", "value": "1."}]'
    return b'{"id": "s%d", "conversations": %s}' % (number, turns)


def places(units) -> list[list[str]]:
    return [[one.where for one in unit.read()] for unit in units]


def test_units_have_all_lines_once_with_their_numbers_whatever_is_between(annotations, monkeypatch):
    monkeypatch.setattr("vl3.data.build.units.SAMPLES_PER_SHARD", 2)
    train = annotations(b"\xef\xbb\xbf" + b"\r\n".join([line(1), b" ", line(3), b"", line(5)]))
    heldout = annotations(line(1) + b"\n" + line(2), "heldout")
    units = find_units([train, heldout])
    assert [unit.lines for unit in units] == [2, 2, 1]
    assert [unit.first_position for unit in units] == [0, 2, 4]
    assert places(units) == [
        ["annotations/train.jsonl:1", "annotations/train.jsonl:3"],
        ["annotations/train.jsonl:5", "annotations/heldout.jsonl:1"],
        ["annotations/heldout.jsonl:2"],
    ]
    assert [[one.sample_id for one in unit.read()] for unit in units] == [["s1", "s3"], ["s5", "s1"], ["s2"]]


def test_a_unit_reads_its_bytes_and_no_others(annotations):
    train = annotations(b"\n".join(line(number) for number in range(300)))
    units = find_units([train])
    assert [unit.lines for unit in units] == [128, 128, 44]
    (span,) = units[1].spans
    assert span.first_line == 129
    assert span.offset_bytes == len(b"\n".join(line(number) for number in range(128))) + 1


def test_packed_annotations_are_unpacked_before_they_are_cut(annotations):
    packed = annotations(gzip.compress(line(1) + b"\n" + line(2)))
    assert are_packed(packed)
    plain = annotations(b"".join(unpack(packed)), "plain")
    assert not are_packed(plain)
    assert [unit.lines for unit in find_units([plain])] == [2]


@pytest.mark.parametrize("data", [b"", b"\n \r\n\n"])
def test_annotations_without_lines_are_refused(annotations, data):
    with pytest.raises(DataError, match=r"has no lines\. Add samples"):
        find_units([annotations(data)])


def test_annotations_that_shrank_after_the_pass_are_an_error_or_bad_lines(annotations, tmp_path):
    units = find_units([annotations(line(1) + b"\n" + line(2))])
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"train\.jsonl cannot be read .*Restore the file"):
        places(units)
