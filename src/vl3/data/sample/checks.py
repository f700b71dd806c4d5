"""Checks of a sample's texts and times; each raises a SampleProblem with its reason."""

import contextlib
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from vl3.data.sample.problems import ProblemKind, SampleProblem, printable, shown

IMAGE_TAG = "<image>"
VIDEO_TAG = "<video>"
BOX_LIMIT = 1000
TIME_TOLERANCE_SECONDS = 1.0
TIME_TOLERANCE_SHARE = 0.01
"""How far a time may be beyond the end of its video: annotations round it, and another encoding cuts a few frames."""
_RANGE = re.compile(r"(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*s(?:econds)?\.?")
_RANGES = re.compile(rf"{_RANGE.pattern}(?:\s*(?:,|and)\s*{_RANGE.pattern})*")
_NUMBER = r"\s*([-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?))\s*"
_BOXES = re.compile(r"\[(\[[^\[\]]*\](?:\s*,\s*\[[^\[\]]*\])*)\]")
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]", re.IGNORECASE)
_POINT = re.compile(rf"\[{_NUMBER},{_NUMBER}\]", re.IGNORECASE)


def check_alternation(roles: Sequence[str], where: str) -> None:
    """Raise unless the turns after a system turn are user, assistant, user, assistant, ..."""
    if len(roles) < 2:
        reason = f"{len(roles)} turn(s) and no answer, so there is nothing to learn. Add an answer or drop the line."
        raise SampleProblem(ProblemKind.NO_ANSWER, reason, where)
    for index, role in enumerate(roles):
        wanted = ("user", "assistant")[index % 2]
        if role != wanted:
            reason = f"turn {index + 1} is from {role}, expected {wanted}. Turns must alternate: correct the order."
            raise SampleProblem(ProblemKind.TURNS, reason, where)
    if len(roles) % 2:
        reason = f"the last of {len(roles)} turns has no answer. Add the answer or drop the turn."
        raise SampleProblem(ProblemKind.NO_ANSWER, reason, where)


def check_texts(messages: Sequence[tuple[str, str]], num_images: int, num_videos: int, where: str) -> None:
    """Raise unless the tags match the media and are in user turns only, and no answer is empty."""
    for role, text in messages:
        if role != "user" and (IMAGE_TAG in text or VIDEO_TAG in text):
            reason = f"a media tag is in a turn of the {role}; only human turns may have media. Move the tag."
            raise SampleProblem(ProblemKind.TAGS, reason, where)
        if role == "assistant" and not text:
            raise SampleProblem(ProblemKind.NO_ANSWER, "an answer is empty. Fill it in or drop the line.", where)
    for tag, num_files in ((IMAGE_TAG, num_images), (VIDEO_TAG, num_videos)):
        num_tags = sum(text.count(tag) for _, text in messages)
        if num_tags != num_files:
            reason = (
                f"{num_tags} {tag} tag(s) for {num_files} file(s). Tokens and pixels would not match: write one tag "
                "per file."
            )
            raise SampleProblem(ProblemKind.TAGS, reason, where)


def check_stream_times(data: dict[str, Any], times: Sequence[float], where: str) -> tuple[float, float]:
    """Start and end of a stream in seconds.

    Raises:
        SampleProblem: the window is empty, or a message is out of order or outside it.
    """
    start, end = finite_seconds(data, "start_time", where), finite_seconds(data, "end_time", where)
    if start >= end:
        reason = f"start_time={start} is not before end_time={end}, so the stream has no frame. Correct the times."
        raise SampleProblem(ProblemKind.TIMES, reason, where)
    for earlier, later in itertools.pairwise(times):
        if later < earlier:
            reason = f"a message at {later} s follows one at {earlier} s. Put the messages in order of time."
            raise SampleProblem(ProblemKind.TIMES, reason, where)
    for time in times:
        if not start <= time <= end:
            reason = f"a message at {time} s is outside the stream, {start} to {end} s. Correct the times."
            raise SampleProblem(ProblemKind.TIMES, reason, where)
    return start, end


def finite_seconds(data: dict[str, Any], key: str, where: str) -> float:
    """The time in `data[key]`, in seconds.

    Raises:
        SampleProblem: it is missing, negative or not a number.
    """
    value = data.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        with contextlib.suppress(OverflowError):  # an integer of more than 308 digits
            return float(value)
    raise SampleProblem(ProblemKind.TIMES, f"{key}={shown(value)} is not a time in seconds. Correct it.", where)


def time_ranges(text: str) -> list[tuple[float, float]]:
    """The intervals of a temporal grounding answer, in seconds; empty if the text is anything else.

    >>> time_ranges("4.0-9.5 s"), time_ranges("1-2 s, 3-4 s"), time_ranges("At 4.0-9.5 s.")
    ([(4.0, 9.5)], [(1.0, 2.0), (3.0, 4.0)], [])
    """
    if not _RANGES.fullmatch(text):
        return []
    return [(float(start), float(end)) for start, end in _RANGE.findall(text)]


def check_time_ranges(texts: Sequence[str], where: str) -> None:
    """Raise if an interval of a temporal grounding answer ends before it starts."""
    for text in texts:
        if not all(start <= end < math.inf for start, end in time_ranges(text)):
            reason = f"the answer {shown(text)} ends before it starts. Correct the times."
            raise SampleProblem(ProblemKind.TIMES, reason, where)


def check_times_in_video(times: Iterable[tuple[str, float]], duration_seconds: float, where: str) -> None:
    """Raise if a time, given with a name for it, is after the end of the video and the tolerance.

    A video of 6 s has 1.06 s of tolerance: an answer `2.0-6.5 s` passes, `2.0-9.5 s` does not.
    """
    limit = duration_seconds + TIME_TOLERANCE_SECONDS + TIME_TOLERANCE_SHARE * duration_seconds
    for name, seconds in times:
        if not seconds <= limit:
            reason = f"{name} is at {seconds:g} s, but the video ends at {duration_seconds:.2f} s. Correct the times."
            raise SampleProblem(ProblemKind.TIMES, reason, where)


def check_boxes(texts: Sequence[str], where: str, *, points: bool) -> None:
    """Raise if a box has a coordinate outside 0 to 1000 or its corners in the wrong order, or a point is outside.

    `[[0,0,500,900]]` and `[[0,0,10,10],[5,5,9,9]]` pass; `[[0,0,500,1200]]` and `[[500,0,100,900]]` do not. Pairs are
    looked at only if `points` says so: outside of grounding, `[[1,-2],[3,4]]` is a matrix.
    """
    for group in (found[1] for text in texts for found in _BOXES.finditer(text)):
        for box in _BOX.finditer(group):
            x0, y0, x1, y1 = (float(number) for number in box.groups())
            if not (0 <= x0 <= x1 <= BOX_LIMIT and 0 <= y0 <= y1 <= BOX_LIMIT):  # so that NaN is refused
                reason = (
                    f"box {printable(box[0], 80)} is not x0,y0,x1,y1 within 0 to {BOX_LIMIT} of width and height. "
                    "Normalise its corners."
                )
                raise SampleProblem(ProblemKind.BOXES, reason, where)
        for point in _POINT.finditer(group) if points else ():
            if not all(0 <= float(number) <= BOX_LIMIT for number in point.groups()):
                reason = (
                    f"point {printable(point[0], 80)} is not x,y within 0 to {BOX_LIMIT} of width and height. "
                    "Normalise it."
                )
                raise SampleProblem(ProblemKind.BOXES, reason, where)
