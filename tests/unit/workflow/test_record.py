"""A record is taken only where digest, key, task and places fit; any other content is refused, and named."""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.documents import VALUES, changed
from vl3.config.codec import digest
from vl3.errors import StorageError
from vl3.store.reference import Reference
from vl3.workflow.key import KeyParts
from vl3.workflow.record import (
    StepRecord,
    finished_records,
    parse_record,
    read_record,
    record_of,
    record_uri,
    write_record,
)

PARTS = KeyParts(
    config={"seed": 0, "lora": None}, inputs={"data": "a" * 64}, modules={"vl3.errors": "1"}, libraries={"torch": "2"}
)
KEY = PARTS.key("a-step")
URI = f"file:///nowhere/steps/a-step/{KEY}"


def make_record(uri: str = URI, parts: KeyParts = PARTS, **changes: Any) -> StepRecord:
    out = Reference(uri=f"{uri}/out", sha256="d" * 64, kind="test", created_by={"step": "a-step"})
    facts: dict[str, Any] = {
        "key": parts.key("a-step"), "name": "a-step", "outputs": {"out": out}, "values": {"loss": 0.1 + 0.2, "n": [1]},
        "seconds": 1.5, "created_at": "2026-03-01T10:00:00.000+00:00", "commit": "c" * 40, "parts": parts,
    }  # fmt: skip
    return StepRecord(**(facts | changes))


def content(**changes: Any) -> dict[str, Any]:
    """A record as JSON data, with a digest that fits whatever was changed: as a careful forger would leave it."""
    data = json.loads(json.dumps(asdict(make_record()))) | changes
    return data | {"sha256": digest(data)}


def to_bytes(data: Any) -> bytes:
    return json.dumps(data).encode()


@pytest.fixture
def written(tmp_path: Path) -> tuple[StepRecord, str]:
    """A record in a store, and its URI."""
    uri = record_uri(tmp_path.as_uri(), "a-step", KEY)
    record = make_record(uri)
    write_record(uri, record)
    return record, uri


def test_a_record_is_read_as_it_was_written(written: tuple[StepRecord, str]) -> None:
    record, uri = written
    assert read_record(uri) == record
    assert record_of(record.outputs["out"]) == record


def test_a_changed_record_is_left_aside_and_named(
    written: tuple[StepRecord, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record, uri = written
    path = tmp_path / "steps" / "a-step" / f"{KEY}.json"
    path.write_text(path.read_text().replace('"n": [', '"m": ['))
    with caplog.at_level(logging.WARNING):
        assert read_record(uri) is None
    assert f"{uri}.json, which cannot be trusted" in caplog.text
    assert "its content does not match its sha256" in caplog.text
    with pytest.raises(StorageError, match=rf"{KEY}\.json: the step's record cannot be trusted \(its content does not"):
        record_of(record.outputs["out"])


def test_a_missing_record_is_said(tmp_path: Path) -> None:
    reference = Reference(uri=f"{tmp_path.as_uri()}/out", sha256="d" * 64, kind="test", created_by={})
    assert read_record(tmp_path.as_uri()) is None
    with pytest.raises(StorageError, match=r"\.json: the step's record is missing. Run the workflow again"):
        record_of(reference)


def test_a_record_of_an_older_version_is_left_aside() -> None:
    old = {name: value for name, value in content().items() if name not in ("sha256", "parts", "commit")}
    with pytest.raises(ValueError, match="does not have the fields of a record; an older version of vl3"):
        parse_record(to_bytes(old), URI)


def other_output(uri: str, name: str = "out", sha256: str = "d" * 64) -> dict[str, Any]:
    return {"outputs": {name: {"uri": uri, "sha256": sha256, "kind": "test", "created_by": {}}}}


def test_an_input_may_be_passed_on() -> None:
    uri = f"file:///nowhere/steps/b-step/{'0' * 32}/data"
    record = parse_record(to_bytes(content(**other_output(uri, sha256=PARTS.inputs["data"]))), URI)
    assert record.outputs["out"].uri == uri


INPUT = PARTS.inputs["data"]
FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "other key": ({"key": "0" * 32}, "the record of another step: task 'a-step', key '0000"),
    "other task": ({"name": "b-step"}, "the record of another step: task 'b-step'"),
    "other parts": ({"parts": {**asdict(PARTS), "config": {"seed": 1}}}, "the record of another step"),
    "outside of the run": (other_output("file:///etc"), "output 'out' is at 'file:///etc', outside of the step's"),
    "another root": (other_output(f"file:///other/steps/a-step/{KEY}/out"), "outside of the step's folder"),
    "another store": (other_output(f"s3://bucket/steps/a-step/{KEY}/out"), "outside of the step's folder"),
    "no input": (other_output(f"file:///nowhere/steps/b-step/{KEY}/data"), "outside of the step's folder"),
    "an input elsewhere": (other_output(f"file:///x/steps/b-step/{KEY}/data", sha256=INPUT), "outside of the step's"),
    "an input's way up": (other_output(f"file:///nowhere/steps/../{KEY}/data", sha256=INPUT), "outside of the step's"),
    "a way up": (other_output(f"{URI}/../../out", "../../out"), "outside of the step's folder"),
    "a coded way up": (other_output(f"{URI}/%2e%2e", "%2e%2e"), "outside of the step's folder"),
    "digest that is a path": (other_output(f"{URI}/out", sha256="../../etc"), "is not valid"),
    "no time": ({"created_at": "yesterday"}, "its time or its commit is not valid"),
    "time without zone": ({"created_at": "2026-03-01T10:00:00"}, "its time or its commit is not valid"),
    "endless": ({"seconds": 1e300}, "its time or its commit is not valid"),
    "values that are none": ({"values": [1]}, "its values are not an object"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_record_is_refused(name: str) -> None:
    changes, message = FORGED[name]
    with pytest.raises(ValueError, match=message):
        parse_record(to_bytes(content(**changes)), URI)


@settings(max_examples=400, deadline=None)
@given(data=changed(content()))
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    try:
        record = parse_record(data, URI)
    except ValueError:
        return
    assert record == make_record(values=record.values)


@settings(max_examples=200, deadline=None)
@given(field=st.sampled_from(sorted(set(content()) - {"sha256"})), value=VALUES)
def test_any_value_under_a_fitting_digest_is_sound_or_refused(field: str, value: Any) -> None:
    try:
        data = to_bytes(content(**{field: value}))
    except ValueError:  # no digest can be made of half a character
        return
    try:
        record = parse_record(data, URI)
    except ValueError:
        return
    assert all(reference.uri == f"{URI}/{name}" for name, reference in record.outputs.items())
    assert asdict(replace(record, values={}))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed(content()))
def test_whatever_is_there_reading_raises_nothing_and_touches_nothing_else(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "steps" / "a-step"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{KEY}.json").write_bytes(data)
    uri = record_uri(tmp_path.as_uri(), "a-step", KEY)
    found = read_record(uri)
    assert found is None or found.outputs == {}
    assert [path.name for path in tmp_path.rglob("*")] == ["steps", "a-step", f"{KEY}.json"]
    assert list(finished_records(tmp_path.as_uri(), "a-step")) == [found] * (found is not None)


def test_finished_records_come_newest_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import os

    keys = []
    for number in range(3):
        parts = replace(PARTS, config={"seed": number})
        uri = record_uri(tmp_path.as_uri(), "a-step", parts.key("a-step"))
        write_record(uri, make_record(uri, parts))
        os.utime(tmp_path / "steps" / "a-step" / f"{parts.key('a-step')}.json", (number, number))
        keys.append(parts.key("a-step"))
    (tmp_path / "steps" / "a-step" / keys[0]).mkdir()
    (tmp_path / "steps" / "a-step" / f"{keys[2]}.json").write_text("{")
    assert [record.key for record in finished_records(tmp_path.as_uri(), "a-step")] == [keys[1], keys[0]]
    assert f"{keys[2]}.json, which cannot be trusted" in caplog.text
    assert list(finished_records(tmp_path.as_uri(), "b-step")) == []


def test_records_on_s3_are_read_through_the_store(s3_root: str) -> None:
    uri = record_uri(s3_root, "a-step", KEY)
    write_record(uri, make_record(uri))
    assert read_record(uri) == make_record(uri)
    assert [record.key for record in finished_records(s3_root, "a-step")] == [KEY]
