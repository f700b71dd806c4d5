"""Keys that a record does not know: they are named and counted, and one that holds media refuses the line.

{"images": ["a.png"], "conversations": [...]}      refused: the key `image` was meant
{"licence": "CC0", "conversations": [...]}         kept, with the unknown key `licence`
"""

import re
from collections.abc import Iterator
from typing import Any

from vl3.data.sample.problems import ProblemKind, SampleProblem, printable, shown

_COMMON = frozenset({"id", "category", "source", "chance", "image", "video", "stream"})
_CHAT_KEYS = _COMMON | {"conversations"}
_STREAM_KEYS = _COMMON | {"conversation", "start_time", "end_time"}
_TURN_KEYS = {"conversations": frozenset({"from", "value"}), "conversation": frozenset({"role", "content", "time"})}
_MAX_NAMED = 20
_MAX_NAME_CHARACTERS = 60
_MAX_VALUES = 10_000

_WORDS = {
    "image": ("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "frames"),
    "video": ("video", "videos", "vid", "vids", "clip", "clips", "media"),
}
"""Names that people give to media, by the key that is meant."""
_FILLERS = "path paths file files filename filenames filepath url urls uri uris src data bytes list input inputs"
"""Words beside the name that do not change its meaning, as in `image_path`."""
_IMAGE_SUFFIXES = (
    "jpg jpeg jpe jfif png gif webp bmp tif tiff heic heif avif jp2 j2k jxl ppm pgm pbm pnm tga ico svg psd exr dng"
)
_VIDEO_SUFFIXES = (
    "mp4 m4v mov mkv webm avi mpg mpeg mpe m2v ts mts m2ts flv f4v wmv asf 3gp 3g2 ogv ogm vob rm rmvb mxf h264 h265 "
    "hevc y4m ivf"
)
_SUFFIXES = {"image": frozenset(_IMAGE_SUFFIXES.split()), "video": frozenset(_VIDEO_SUFFIXES.split())}


def unknown_keys(data: dict[str, Any], is_stream: bool, where: str) -> tuple[str, ...]:
    """Names of the keys that are not read, those of turns as `conversations[].name`; at most 20 and a rest.

    Raises:
        SampleProblem: one of them holds media, or is called so.
    """
    names: dict[str, None] = {}
    for name, value in _unread(data, is_stream):
        meant = _meant(name.rpartition(".")[2], value)
        if meant:
            reason = (
                f"{shown(name)} is not a key of the format, but holds media ({shown(value)}), which would be left out "
                f"without a word. Call it {meant!r} and give it a path or a list of paths, or remove it."
            )
            raise SampleProblem(ProblemKind.STRUCTURE, reason, where)
        names[printable(name, _MAX_NAME_CHARACTERS).replace(", ", ",")] = None  # the index joins them with commas
    kept = list(names)
    return tuple(kept if len(kept) <= _MAX_NAMED else [*kept[:_MAX_NAMED], f"{len(kept) - _MAX_NAMED} other keys"])


def _unread(data: dict[str, Any], is_stream: bool) -> Iterator[tuple[str, Any]]:
    """The keys that a chat or a stream does not read, and their values. A null of the other kind says nothing."""
    known = _STREAM_KEYS if is_stream else _CHAT_KEYS
    if not data.keys() <= known:
        ours = _STREAM_KEYS | _CHAT_KEYS
        yield from (
            (name, value) for name, value in data.items() if name not in known and not (name in ours and value is None)
        )
    turns = "conversation" if is_stream else "conversations"
    messages = data.get(turns)
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and not message.keys() <= _TURN_KEYS[turns]:
            yield from (
                (f"{turns}[].{name}", value) for name, value in message.items() if name not in _TURN_KEYS[turns]
            )


def _meant(name: str, value: Any) -> str | None:
    """The key that was meant if a value is media, by its name or by the suffix of a path in it; else None."""
    texts = [text for text in _texts(value) if text.strip()]
    by_name = _meant_by_name(name) if texts else None
    return by_name or next((meant for text in texts if (meant := _meant_by_path(text))), None)


def _meant_by_name(name: str) -> str | None:
    """`Images`, `image_path`, `imgFile` and `iamge` mean `image`; `image_id` and `video_length` mean nothing."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    rest = "".join(word for word in words if word not in _FILLERS.split())
    for key, called in _WORDS.items():
        if any(rest == word or (len(word) > 4 and _one_edit(rest, word)) for word in called):
            return key
    return None


def _meant_by_path(text: str) -> str | None:
    """`a/cat.JPG`, `http://x/cat.png?size=2` and `data:image/png;...` mean `image`, `clip.mp4` means `video`."""
    if text.startswith(("data:image/", "data:video/")):
        return text[5:10]
    text = text.strip()
    if len(text) > 4096 or "\n" in text:
        return None
    stem, _, suffix = re.split(r"[?#]", text, maxsplit=1)[0].rpartition(".")
    if not stem or stem.endswith(("/", "\\")):  # a suffix alone, as in `"format": ".jpg"`
        return None
    return next((key for key, suffixes in _SUFFIXES.items() if suffix.lower() in suffixes), None)


def _texts(value: Any) -> Iterator[str]:
    """The texts within a value, at any depth."""
    waiting = [value]
    for _ in range(_MAX_VALUES):
        if not waiting:
            return
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list | dict):
            waiting += item.values() if isinstance(item, dict) else item


def _one_edit(text: str, word: str) -> bool:
    """Whether one letter more, fewer or other, or two swapped, make the text the word: `iamge`, `imag`, `vidoe`."""
    first = next((i for i, (a, b) in enumerate(zip(text, word, strict=False)) if a != b), min(len(text), len(word)))
    left, right = text[first:], word[first:]
    swapped = left[:2] == right[1::-1] and left[2:] == right[2:]
    return swapped or left[1:] == right[1:] or left[1:] == right or left == right[1:]
