"""Why a sample is refused: a kind for counting and a sentence for the person who owns the data."""

from enum import StrEnum

from vl3.errors import DataError


class ProblemKind(StrEnum):
    """What is wrong with a line, in the order in which the checks run."""

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
        kind: what is wrong, for counting.
        reason: what is wrong and what to do, without the place.
        where: the place, such as `annotations/train.jsonl:12`.
    """

    def __init__(self, kind: ProblemKind, reason: str, where: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.kind = kind
        self.reason = reason
        self.where = where

    def __reduce__(self) -> tuple[type, tuple[ProblemKind, str, str]]:
        """Keeps the three parts when the error crosses a process border."""
        return type(self), (self.kind, self.reason, self.where)
