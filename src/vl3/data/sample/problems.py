"""Why a sample is refused: a kind to count by and a sentence for the owner of the data."""

from enum import StrEnum

from vl3.errors import DataError


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
        reason: what is wrong and what to do, without the location.
        where: the location, such as `annotations/train.jsonl:12`.
    """

    def __init__(self, kind: ProblemKind, reason: str, where: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.kind = kind
        self.reason = reason
        self.where = where

    def __reduce__(self) -> tuple[type, tuple[ProblemKind, str, str]]:
        """Keep the three parts when the error is pickled and sent to another process."""
        return type(self), (self.kind, self.reason, self.where)
