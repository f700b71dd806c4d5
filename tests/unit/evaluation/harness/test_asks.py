"""A task's chat messages as one question."""

from pathlib import Path

import pytest
from PIL import Image

from vl3.errors import DataError
from vl3.evaluation.harness.asks import read_messages


def user(*content: dict) -> list[dict]:
    return [{"role": "user", "content": list(content)}]


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def shade(value: int) -> dict:
    return {"type": "image", "url": Image.new("RGB", (4, 4), (value, 0, 0))}


def test_contents_keep_their_order_each_with_its_tag(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"x")
    video = {"type": "video", "url": str(tmp_path / "v.mp4"), "start_time": 1.0, "end_time": 2.0}
    ask = read_messages(
        user(text("First"), shade(1), text("then"), video), name="t-0", max_new_tokens=16, stops=["\nQ"]
    )
    assert ask.text == "First\n<image>\nthen\n<video>"
    assert (len(ask.images), ask.video, ask.span) == (1, str(tmp_path / "v.mp4"), (1.0, 2.0))
    assert ask.media_names == ("image 1", "v.mp4")
    assert (ask.question.start_seconds, ask.question.end_seconds) == (1.0, 2.0)


def test_tags_in_a_benchmarks_own_text_are_no_media() -> None:
    ask = read_messages(user(shade(1), text("What is <image> in <video>?")), name="t-0", max_new_tokens=16)
    assert ask.text == "<image>\nWhat is [image] in [video]?"


def test_the_digest_changes_with_text_and_pixels_only() -> None:
    def digest(value: int, words: str, name: str = "t-0") -> str:
        return read_messages(user(shade(value), text(words)), name=name, max_new_tokens=16).sha256

    assert digest(1, "a") == digest(1, "a", "t-1")
    assert len({digest(1, "a"), digest(2, "a"), digest(1, "b")}) == 3


def test_questions_about_the_same_media_are_a_group() -> None:
    def group(*content: dict) -> str:
        return read_messages(user(*content), name="t-0", max_new_tokens=16).media_sha256

    assert group(shade(1), text("a")) == group(shade(1), text("b")) != group(shade(2), text("a"))
    assert group(text("a")) == ""


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (user(), "has no content"),
        ([{"role": "assistant", "content": []}], "Ask it without examples"),
        (user({"type": "audio", "url": "a.wav"}), "content of type audio cannot be shown"),
        (user({"type": "video", "url": "/nowhere/v.mp4"}), r"v\.mp4 is missing from the benchmark's copy"),
        (user({"type": "video", "url": 3}), "a question has one, given by its file"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(messages: list, message: str) -> None:
    with pytest.raises(DataError, match=rf"t-0: .*{message}"):
        read_messages(messages, name="t-0", max_new_tokens=16)
