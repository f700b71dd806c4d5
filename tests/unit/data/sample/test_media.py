"""Media paths stay inside the data folder."""

from pathlib import Path

import pytest

from vl3.data.sample.media import read_media, resolve_media_path
from vl3.data.sample.problems import ProblemKind, SampleProblem


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "a.png").write_bytes(b"pixels")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "data"


def test_a_relative_path_is_found(root):
    path = resolve_media_path(root, "images/a.png", "train.jsonl:1")
    assert read_media(path, "images/a.png", "train.jsonl:1") == b"pixels"


@pytest.mark.parametrize("path", ["../secret.txt", "images/../../secret.txt", "/etc/passwd"])
def test_paths_out_of_the_folder_are_refused(root, path):
    with pytest.raises(SampleProblem, match="leads outside the data folder") as caught:
        resolve_media_path(root, path, "train.jsonl:5")
    assert caught.value.kind is ProblemKind.OUTSIDE_FOLDER
    assert str(caught.value).startswith(f"train.jsonl:5: {path!r}")


def test_links_out_of_the_folder_are_refused(root):
    (root / "images" / "link.png").symlink_to(root.parent / "secret.txt")
    with pytest.raises(SampleProblem, match="leads outside"):
        resolve_media_path(root, "images/link.png", "x")


def test_links_inside_the_folder_are_followed(root):
    (root / "b.png").symlink_to(root / "images" / "a.png")
    assert resolve_media_path(root, "b.png", "x").name == "a.png"


@pytest.mark.parametrize(
    ("path", "what"), [("images/none.png", "does not exist"), ("images", "is a folder"), ("a\0b", "not a usable path")]
)
def test_what_is_no_file_is_missing(root, path, what):
    with pytest.raises(SampleProblem, match=what) as caught:
        resolve_media_path(root, path, "x")
    assert caught.value.kind is ProblemKind.MISSING_FILE
