"""Reference files."""

from pathlib import Path

import pytest

from vl3.errors import StorageError
from vl3.store.reference import Reference, read_reference, write_reference

REFERENCE = Reference(uri="s3://bucket/key", sha256="ab" * 32, kind="dataset", created_by={"step": "validate-data"})


def test_reference_survives_the_file(tmp_path: Path) -> None:
    write_reference(REFERENCE, tmp_path / "deep" / "reference.json")
    assert read_reference(tmp_path / "deep" / "reference.json") == REFERENCE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"uri": "x"}', "needs the fields created_by, kind, sha256, uri and has uri"),
        ("[]", "has list"),
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
