"""Bases by URI."""

from pathlib import Path

import pytest

from vl3.errors import ConfigError
from vl3.store.bases import base_folder, folder_digest


def test_package_and_file_bases_are_found(tmp_path: Path) -> None:
    assert (base_folder("package://vl3.recipes/mixtures") / "tiny" / "video.yaml").is_file()
    assert base_folder(tmp_path.as_uri()) == tmp_path


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("package://vl3.nothing/x", "which is not installed"),
        ("package://vl3.recipes/nothing", "does not exist"),
        ("file:///nowhere/at/all", "does not exist"),
        ("gs://bucket/x", "'gs://bucket/x' has no scheme, or an unknown one"),
        ("/plain/path", "'/plain/path' has no scheme"),
        ("file:///nowhere#at", "has a '#', which has another meaning in a URI than in a path. Write it as %23"),
        ("package:///x", "names the package '', which is not installed"),
        ("package://vl3.recipes/../../x", "has an empty part, '.' or '..'"),
        ("hf://owner/name#part", "does not name a model of the hub"),
        ("hf://owner/name?revision=x", "does not name a model of the hub"),
    ],
)
def test_a_wrong_base_is_explained(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        base_folder(uri)


def test_digest_follows_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1")
    first = folder_digest(tmp_path)
    (tmp_path / "a.json").write_text("2")
    second = folder_digest(tmp_path)
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    third = folder_digest(tmp_path)
    (tmp_path / "notes.md").write_text("no part of a model")
    assert len({first, second, third}) == 3
    assert folder_digest(tmp_path) == third
