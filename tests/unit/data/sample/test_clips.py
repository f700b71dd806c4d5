"""Clips of a line: which pictures a folder has, and in which order media are shown."""

from functools import partial

import pytest

from vl3.data.sample.clips import Clip, in_prompt_order, list_frames
from vl3.data.sample.media import resolve_media_folder
from vl3.data.sample.problems import ProblemKind, SampleProblem

FOLDER = Clip(path="clip/", frames_fps=2.0)


def test_the_pictures_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "clip").mkdir()
    for name in ("f10.JPG", "f2.png", "f9.webp", "notes.txt", "f1.jpg.bak"):
        (tmp_path / "clip" / name).touch()
    names_in = partial(resolve_media_folder, tmp_path)
    (clip,) = list_frames([FOLDER], names_in, "t:1")
    assert clip == Clip(path="clip/", frames_fps=2.0, frames=("clip/f2.png", "clip/f9.webp", "clip/f10.JPG"))
    assert clip.files == clip.frames
    assert list_frames([clip, "a.png", Clip(path="v.mp4")], names_in, "t:1") == (clip, "a.png", Clip(path="v.mp4"))


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("../other", ProblemKind.OUTSIDE_FOLDER, "leads outside the data folder"),
        ("link", ProblemKind.OUTSIDE_FOLDER, "leads outside the data folder"),
        ("missing", ProblemKind.MISSING_FILE, "does not exist in the data folder"),
        ("file", ProblemKind.MISSING_FILE, "is a file, not a folder of frames"),
        ("empty", ProblemKind.MISSING_FILE, "has no picture"),
    ],
)
def test_a_folder_without_pictures_is_refused(tmp_path, path, kind, words):
    (tmp_path / "data" / "empty").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "data" / "file").touch()
    with pytest.raises(SampleProblem, match=words) as caught:
        list_frames([Clip(path=path, frames_fps=1.0)], partial(resolve_media_folder, tmp_path / "data"), "t:1")
    assert caught.value.kind is kind


def test_media_follow_the_tags():
    clip = Clip(path="v")
    assert in_prompt_order(["<image> a <video>", "<image>"], ["p", "q"], [clip]) == ("p", clip, "q")
