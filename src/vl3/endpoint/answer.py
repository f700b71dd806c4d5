"""What came back: the server's reply as it is stored, and the answer that the rules make of it.

The reply is stored as it came, and judged when it is read. So a rule that changes asks and pays nothing again.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from vl3.config.valued import read_valued
from vl3.errors import ConfigError
from vl3.system.secrets import masked

DEFAULT_RULES = Path(str(files("vl3.endpoint"))) / "templates" / "answers.yaml"
_MAX_REASON_CHARACTERS = 400


class Outcome(StrEnum):
    """What became of a question."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """The model, or its server's filter, declined."""
    EMPTY = "empty"
    CUT_OFF = "cut off"
    """The answer reached its largest length."""
    REPEATED = "repeated"
    """The answer repeats itself."""
    MALFORMED = "malformed"
    """The answer is not of the form that the question wants."""
    REJECTED = "rejected"
    """The server does not take the question."""
    FAILED = "failed"
    """The server gave an error, each time that it was asked."""
    STALLED = "stalled"
    """The server gave no answer in time, each time that it was asked."""
    OVER_LIMIT = "over the spend limit"
    """It was not asked."""
    NO_PICTURE = "no picture"
    """A picture that it shows cannot be made, so it was not asked."""


ASKED_AGAIN = (Outcome.EMPTY, Outcome.CUT_OFF, Outcome.REPEATED, Outcome.MALFORMED)
"""Outcomes that another sample of the same model may mend."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What the server sent, as far as it is kept."""

    text: str
    refusal: str
    """The server's own field for a refusal; empty if there is none."""
    finish_reason: str
    """`stop`, `length`, `content_filter` or what else the server writes."""
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointAnswer:
    """The answer to one question."""

    name: str
    """Of the question."""
    key: str
    """Digest of the question: its name in the store of answers."""
    outcome: Outcome
    text: str
    """Empty unless it is answered."""
    reason: str
    """Why there is none; empty if it is answered."""
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    """What it cost in this run: 0 for an answer from the store. Of a request whose end is unknown, what it can cost."""
    is_stored: bool = False
    """Whether it was paid by an earlier question."""


@dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """When a reply is no answer, as data with its reasons (`templates/answers.yaml`)."""

    refusals: tuple[str, ...]
    """Regular expressions of a refusal, looked for at the start of an answer, whatever the case."""
    refusal_characters: int
    """How much of an answer's start is looked at."""
    repeat_window_characters: int
    """Length of the pieces of an answer that are compared."""
    max_repeated_share: float
    """Share of pieces that stood in the answer before, above which it repeats itself."""

    @cached_property
    def _refusal(self) -> re.Pattern[str]:
        try:
            return re.compile("|".join(f"(?:{pattern})" for pattern in self.refusals), re.IGNORECASE | re.DOTALL)
        except re.error as error:
            raise ConfigError(
                f"the rules of answers have a refusal that is no regular expression ({error})."
            ) from error

    def judge(self, reply: Reply) -> tuple[Outcome, str]:
        """The outcome of a reply, and why there is no answer (empty if there is one)."""
        text = reply.text.strip()
        if reply.refusal or reply.finish_reason == "content_filter":
            return (
                Outcome.REFUSED,
                f"the server declined: {plain(reply.refusal) or 'its content filter took the answer'}",
            )
        if not text:
            return Outcome.EMPTY, f"the answer is empty (finish_reason {plain(reply.finish_reason)!r})"
        share = repeated_share(text, self.repeat_window_characters)
        if share > self.max_repeated_share:
            return Outcome.REPEATED, f"{share:.0%} of the answer stood in it before: {plain(text[-80:])!r}"
        if found := self._refusal.search(text, 0, self.refusal_characters):
            return Outcome.REFUSED, f"the model declined: {plain(found[0])!r}"
        if reply.finish_reason == "length":
            return Outcome.CUT_OFF, f"the answer was cut off after {reply.output_tokens} tokens"
        return Outcome.ANSWERED, ""


def repeated_share(text: str, window: int) -> float:
    """Share of the pieces of `window` characters, one from each character on, that stood in the text before.

    `abcabcab` with windows of 3 has the pieces abc bca cab abc bca cab: 3 of 6 are repeats, so 0.5. A text of fewer
    than 8 pieces says too little and has 0.
    """
    count = len(text) - window + 1
    if count < 8:
        return 0.0
    return 1 - len({text[start : start + window] for start in range(count)}) / count


def read_answer_rules(path: Path = DEFAULT_RULES) -> AnswerRules:
    """The rules of a YAML file; vl3's own by default.

    Raises:
        ConfigError: the file cannot be read, or a rule is wrong.
    """
    return read_valued(AnswerRules, path)


def plain(text: str) -> str:
    """A text of a server as a message may show it: one line, short, printable, without accounts."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[:4000]).split())
    line = masked(line)
    return line if len(line) <= _MAX_REASON_CHARACTERS else line[: _MAX_REASON_CHARACTERS - 3] + "..."
