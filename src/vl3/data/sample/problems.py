"""Why a sample is refused: a kind to count by and a sentence for the owner of the data."""

import re
import reprlib
from collections.abc import Iterable
from enum import StrEnum

from vl3.errors import DataError

MAX_REASON_CHARACTERS = 1000
MAX_PATH_CHARACTERS = 200
"""Of a path, as the place of a refusal."""
_MAX_SHOWN_CHARACTERS = 120
_MAX_PLACES = 3
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 80, 80, 40
_VALUES = re.compile(r"^.{1,300}?: (?=the )|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|-?\d+(?:\.\d+)?")
"""What differs between two refusals for the same cause: the name of the file, quoted values and numbers."""


class ProblemKind(StrEnum):
    """What is wrong with a line, in the order of the checks."""

    JSON = "json"
    STRUCTURE = "structure"
    NO_TURNS = "no_turns"
    NO_ANSWER = "no_answer"
    TURNS = "turns"
    TAGS = "tags"
    TIMES = "times"
    BOXES = "boxes"
    DUPLICATE = "duplicate"
    OUTSIDE_FOLDER = "outside_folder"
    MISSING_FILE = "missing_file"
    UNDECODABLE = "undecodable"
    TOO_LONG = "too_long"


class SampleProblem(DataError):
    """One sample cannot be used.

    Attributes:
        kind: what is wrong, to count by.
        reason: what is wrong and what to do, without the location; printable and on one line.
        where: the location, such as `annotations/train.jsonl:12`.
    """

    def __init__(self, kind: ProblemKind, reason: str, where: str) -> None:
        reason, where = printable(reason), printable(where)
        super().__init__(f"{where}: {reason}")
        self.kind = kind
        self.reason = reason
        self.where = where

    def __reduce__(self) -> tuple[type, tuple[ProblemKind, str, str]]:
        """Keep the three parts when the error is pickled and sent to another process."""
        return type(self), (self.kind, self.reason, self.where)


def field_problem(where: str, field: str, reason: str) -> SampleProblem:
    """The refusal of a line for the value of one field, in the form `file:line: field: reason`."""
    return SampleProblem(ProblemKind.STRUCTURE, f"{field}: {reason}", where)


def shown(value: object) -> str:
    """A value of a file as a message may show it: quoted, printable, short at any length and depth.

    >>> shown("a" * 500)[-4:], shown([[[[1]]]])
    ("aaa'", '[[[[...]]]]')
    """
    return printable(_SHORT.repr(value), _MAX_SHOWN_CHARACTERS)


def printable(text: str, limit: int = MAX_REASON_CHARACTERS) -> str:
    r"""A text on one line without control characters, cut at a limit.

    >>> printable("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    text = text if len(text) <= limit else text[: limit - 3] + "..."
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def list_refusals(refusals: Iterable[tuple[str, str]]) -> list[str]:
    """Lines to print for refused lines, given as (place, reason): equal reasons once, with count and three places.

    Reasons that differ in names and numbers alone count as equal from the fourth on. 40 missing pictures make one line:

        a:1, a:2, a:3 and 37 more (40 lines): media file 'x.png' does not exist ... (the others differ in their values)
    """
    by_cause: dict[str, dict[str, list[str]]] = {}
    for place, reason in refusals:
        by_cause.setdefault(_VALUES.sub("?", reason), {}).setdefault(reason, []).append(place)
    lines = []
    for by_reason in by_cause.values():
        if len(by_reason) <= _MAX_PLACES:
            lines += [f"{_places(places)}: {reason}" for reason, places in by_reason.items()]
        else:
            places = [place for equal in by_reason.values() for place in equal]
            lines.append(f"{_places(places)}: {next(iter(by_reason))} (the others differ in their values)")
    return lines


def _places(places: list[str]) -> str:
    named = ", ".join(places[:_MAX_PLACES])
    if len(places) == 1:
        return named
    rest = f" and {len(places) - _MAX_PLACES} more" if len(places) > _MAX_PLACES else ""
    return f"{named}{rest} ({len(places)} lines)"
