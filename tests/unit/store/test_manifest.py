"""A manifest of any content is a manifest or a StorageError, and its artifact is whole or does not exist."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.documents import changed
from vl3.errors import StorageError
from vl3.store.artifacts import find, is_intact
from vl3.store.manifest import parse_manifest, verify_folder

FILE = {"size_bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
MANIFEST: dict[str, Any] = {
    "format": 1, "kind": "dataset", "created_by": {"step": "s"}, "files": {"a": FILE, "b/c": FILE}
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {"../a": FILE}}, "names '../a', which is outside"),
        ({"files": {"/etc/passwd": FILE}}, "names '/etc/passwd', which is outside"),
        ({"files": {"a": FILE | {"size_bytes": -1}}}, "the size of a file is not a number of bytes"),
        ({"files": {"a": FILE | {"size_bytes": True}}}, "the size of a file is not a number of bytes"),
        ({"files": {"a": FILE | {"size_bytes": 10**400}}}, "the size of a file is not a number of bytes"),
        ({"files": {"a": FILE | {"sha256": 5}}}, "its kind, its maker or a digest is not text"),
        ({"kind": ["dataset"]}, "its kind, its maker or a digest is not text"),
        ({"created_by": {"step": 1}}, "its kind, its maker or a digest is not text"),
        ({"created_by": [1]}, "AttributeError"),
        ({"files": []}, "AttributeError"),
    ],
)
def test_what_is_no_manifest_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StorageError, match=message):
        parse_manifest(json.dumps(MANIFEST | change).encode(), "here")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed(MANIFEST))
def test_any_bytes_are_a_manifest_or_a_storage_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b").mkdir(exist_ok=True)
    for path in (tmp_path / "a", tmp_path / "b" / "c"):
        path.write_bytes(b"abc")
    (tmp_path / "manifest.json").write_bytes(data)
    found = find(tmp_path.as_uri())
    if found is None:
        with pytest.raises(StorageError):
            parse_manifest(data, "here")
        with pytest.raises(StorageError):
            verify_folder(tmp_path, "0" * 64)
    elif is_intact(found):
        assert set(parse_manifest(data, "here").files) == {"a", "b/c"}
