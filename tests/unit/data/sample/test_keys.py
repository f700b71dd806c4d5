"""Keys that are not read: named, or refused if they hold media."""

import pytest

from vl3.data.sample.keys import unknown_keys
from vl3.data.sample.problems import SampleProblem

TURN = {"from": "human", "value": "Hi"}


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("images", ["a.png"], "image"),
        ("images", ["no-suffix"], "image"),
        ("iamge", "x", "image"),
        ("imag", "x", "image"),
        ("Image", "x", "image"),
        ("IMAGES", ["x"], "image"),
        ("image_path", "x", "image"),
        ("imgFile", "x", "image"),
        ("img", "x", "image"),
        ("photo", {"bytes": "AAAA"}, "image"),
        ("videos", ["v"], "video"),
        ("vidoe", "v", "video"),
        ("video_path", "v", "video"),
        ("clip", "v", "video"),
        ("media", ["v"], "video"),
        ("path", "sub/cat.JPG", "image"),
        ("anything", [["deep", {"at": "cat.webp"}]], "image"),
        ("url", "https://host/cat.png?size=2#top", "image"),
        ("bytes", "data:image/png;base64,AAAA", "image"),
        ("file", "clip.mkv", "video"),
    ],
)
def test_a_key_that_holds_media_says_which_was_meant(key, value, meant):
    for data, name in (
        ({"conversations": [TURN], key: value}, key),
        ({"conversations": [{**TURN, key: value}]}, f"conversations[].{key}"),
    ):
        with pytest.raises(SampleProblem) as caught:
            unknown_keys(data, is_stream=False, where="x")
        assert caught.value.kind.value == "structure"
        assert repr(name) in caught.value.reason
        assert f"Call it {meant!r}" in caught.value.reason


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_id", "000123"),
        ("video_length", "12 s"),
        ("images", None),
        ("images", []),
        ("video_fps", 4),
        ("num_images", 2),
        ("frames", 16),
        ("format", ".jpg"),
        ("suffix", "png"),
        ("text", "See fig.png for more."),
        ("licence", "CC0"),
        ("weight", 0.5),
        ("page", "usage"),
        ("start_time", 3),
        ("", "x"),
    ],
)
def test_other_keys_are_named(key, value):
    assert unknown_keys({"conversations": [], key: value}, is_stream=False, where="x") == (key,)


def test_known_keys_and_nulls_of_the_other_kind_are_not_named():
    chat = {"id": "x.png", "source": "a.mp4", "image": ["a.png"], "conversation": None, "start_time": None}
    assert unknown_keys({**chat, "conversations": [TURN]}, is_stream=False, where="x") == ()
    stream = {"stream": True, "video": "v.mp4", "start_time": 0, "end_time": 1, "conversations": None}
    message = {"role": "user", "content": "a", "time": 1}
    assert unknown_keys({**stream, "conversation": [message]}, is_stream=True, where="x") == ()
    assert unknown_keys({**stream, "conversation": [{**message, "to": 2}]}, is_stream=True, where="x") == (
        "conversation[].to",
    )
    assert unknown_keys({"conversations": [], "conversation": [message]}, is_stream=False, where="x") == (
        "conversation",
    )


def test_many_and_long_keys_are_cut():
    names = unknown_keys({f"k{n}" * 100: 1 for n in range(30)}, is_stream=False, where="x")
    assert names[-1] == "10 other keys"
    assert len(names) == 21
    assert max(map(len, names)) == 60
