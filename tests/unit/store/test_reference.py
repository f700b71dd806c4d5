"""Reference files."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.documents import changed
from vl3.errors import ConfigError, StorageError
from vl3.store.artifacts import is_intact
from vl3.store.reference import Reference, read_reference, write_reference

REFERENCE = Reference(uri="s3://bucket/key", sha256="ab" * 32, kind="dataset", created_by={"step": "validate-data"})


def test_reference_survives_the_file(tmp_path: Path) -> None:
    write_reference(REFERENCE, tmp_path / "deep" / "reference.json")
    assert read_reference(tmp_path / "deep" / "reference.json") == REFERENCE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a reference"),
        ('{"uri": "x"}', "needs the fields created_by, kind, sha256, uri and has uri"),
        ("[]", "is a JSON list"),
    ],
)
def test_a_bad_reference_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "reference.json"
    path.write_text(text)
    with pytest.raises(StorageError, match=message) as caught:
        read_reference(path)
    assert str(path) in str(caught.value)


def test_a_missing_reference_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.json: the reference file is missing"):
        read_reference(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "../../etc"},
        {"sha256": "AB" * 32},
        {"uri": 5},
        {"kind": None},
        {"created_by": []},
        {"created_by": {"a": 1}},
    ],
)  # fmt: skip
def test_a_reference_that_could_name_no_artifact_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(StorageError, match=r"is not valid"):
        Reference.from_dict(REFERENCE.to_dict() | change)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed(REFERENCE.to_dict() | {"uri": "file:///nowhere/at/all"}))
def test_a_reference_file_of_any_content_raises_our_own_errors_alone(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "reference.json"
    path.write_bytes(data)
    try:
        reference = read_reference(path)
        if not reference.uri.startswith("s3:"):
            assert not is_intact(reference)
    except (ConfigError, StorageError):
        pass
    assert list(tmp_path.iterdir()) == [path]
