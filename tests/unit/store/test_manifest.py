"""A manifest of any content is a manifest or a StorageError, and its artifact is whole or does not exist."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.documents import changed
from vl3.errors import StorageError
from vl3.store.artifacts import find, is_intact
from vl3.store.manifest import manifest_digest, parse_manifest, verify_folder, with_provenance, write_manifest

FILE = {"size_bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
MANIFEST: dict[str, Any] = {
    "format": 1, "kind": "dataset", "created_by": {"step": "s"}, "files": {"a": FILE, "b/c": FILE},
    "provenance": {"commit": "ab12", "machine": {"host": "desk"}},
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
        ({"provenance": 1}, "TypeError"),
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


def test_what_ran_is_kept_and_is_no_part_of_the_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    plain = write_manifest(tmp_path, kind="x", created_by={"step": "s"})
    bare = (tmp_path / "manifest.json").read_bytes()
    ran = {"commit": "ab12", "machine": {"host": "d\u00e9sk"}}
    assert write_manifest(tmp_path, kind="x", created_by={"step": "s"}, ran=ran) == plain
    data = (tmp_path / "manifest.json").read_bytes()
    assert parse_manifest(data, "here").provenance == ran
    more = with_provenance(data, {"image": "trainer@sha256:ab"})
    assert parse_manifest(more, "here").provenance == {**ran, "image": "trainer@sha256:ab"}
    assert {manifest_digest(bare), manifest_digest(data), manifest_digest(more)} == {plain}
    (tmp_path / "manifest.json").write_bytes(more)
    verify_folder(tmp_path, plain)


def test_everything_else_is_part_of_the_digest() -> None:
    def digest(**change: Any) -> str:
        return manifest_digest(json.dumps(MANIFEST | change).encode())

    changes: list[dict[str, Any]] = [
        {}, {"kind": "x"}, {"created_by": {}}, {"files": {"a": FILE}}, {"made_from": {}}, {"format": 2}
    ]  # fmt: skip
    assert len({digest(**change) for change in changes}) == len(changes)
    assert digest(provenance={}) == digest(provenance={"commit": "cd34"}) == digest()


@settings(max_examples=200, deadline=None)
@given(data=changed(MANIFEST))
def test_any_bytes_have_a_digest(data: bytes) -> None:
    assert len(manifest_digest(data)) == 64
