"""The rules of cleaning, which a YAML file lists in order (`templates/cleaning.yaml` has vl3's own).

A rule of one line is a class with `finding(texts)`, which says what it found, or None. The other rules look at all
lines; what they compare is in `repeats`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

from vl3.config.codec import from_dict
from vl3.data.derive.settings import read_settings
from vl3.data.sample.problems import shown
from vl3.data.sample.records import IMAGE_TAG, VIDEO_TAG, Record
from vl3.errors import ConfigError

DEFAULT_RULES = Path(str(files("vl3.data.derive"))) / "templates" / "cleaning.yaml"
MAX_RULES = 200
"""A verdict is one byte."""
_LETTER = re.compile(r"[^\W\d_]")
_SCRIPTS = {
    "latin": r"A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02b8\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a",
    "greek": r"\u00b5\u0370-\u03ff\u1f00-\u1fff",
    "cyrillic": r"\u0400-\u052f",
    "han": r"\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "kana": r"\u3041-\u30ff\uff66-\uff9f",
    "hangul": r"\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3",
    "arabic": r"\u0600-\u06ff\u0750-\u077f",
    "hebrew": r"\u0590-\u05ff",
    "devanagari": r"\u0900-\u097f",
    "thai": r"\u0e00-\u0e7f",
}
"""Letters of each script, as ranges of a regular expression."""


class Which(StrEnum):
    """The texts of a sample that a rule looks at."""

    QUESTIONS = "questions"
    ANSWERS = "answers"
    ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """The texts of a sample, without its system message and without tags, which stand for media."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]

    def of(self, which: Which) -> tuple[str, ...]:
        """Those that a rule looks at."""
        if which is Which.ALL:
            return self.questions + self.answers
        return self.questions if which is Which.QUESTIONS else self.answers


def texts_of(record: Record) -> Texts:
    """The texts of a record."""
    messages = record.events or record.turns
    return Texts(
        questions=tuple(_untagged(message.text) for message in messages if message.role == "user"),
        answers=tuple(message.text for message in messages if message.role == "assistant"),
    )


def _untagged(text: str) -> str:
    return text.replace(IMAGE_TAG, "").replace(VIDEO_TAG, "").strip()


@dataclass(frozen=True, kw_only=True)
class ScriptsRule:
    """Drops lines whose letters are mostly of other scripts. French and English are the same to it."""

    kind: ClassVar[str] = "scripts"
    name: str
    reason: str
    of: Which
    scripts: tuple[str, ...]
    min_share: float
    """Of the letters."""

    def __post_init__(self) -> None:
        unknown = [script for script in self.scripts if script not in _SCRIPTS]
        if unknown or not self.scripts:
            raise ConfigError(f"{self.name}: scripts {shown(unknown)} are unknown. Use some of {', '.join(_SCRIPTS)}.")
        if not 0 < self.min_share <= 1:
            raise ConfigError(f"{self.name}: min_share {self.min_share:g} is no share. Write one above 0, up to 1.")

    @cached_property
    def _foreign(self) -> re.Pattern[str]:
        """Letters of other scripts."""
        return re.compile(rf"[^\W\d_{''.join(_SCRIPTS[script] for script in self.scripts)}]")

    def finding(self, texts: Texts) -> str | None:
        """The share of letters in the scripts, if it is too small."""
        text = "\n".join(texts.of(self.of))
        if text.isascii() and "latin" in self.scripts:
            return None
        foreign = len(self._foreign.findall(text))
        if not foreign:
            return None
        letters = len(_LETTER.findall(text))
        share = 1 - foreign / letters
        return f"{share:.0%} of {letters} letters are {' or '.join(self.scripts)}" if share < self.min_share else None


@dataclass(frozen=True, kw_only=True)
class LengthRule:
    """Drops lines with a text that is too short or too long."""

    kind: ClassVar[str] = "length"
    name: str
    reason: str
    of: Which
    min_characters: int
    max_characters: int

    def __post_init__(self) -> None:
        if not 0 <= self.min_characters <= self.max_characters:
            reason = f"{self.min_characters} to {self.max_characters} characters are no range"
            raise ConfigError(f"{self.name}: {reason}. Write a least number that is not above the most.")

    def finding(self, texts: Texts) -> str | None:
        """The length of the first text outside."""
        for text in texts.of(self.of):
            if not self.min_characters <= len(text) <= self.max_characters:
                return f"{len(text)} characters"
        return None


@dataclass(frozen=True, kw_only=True)
class PatternsRule:
    """Drops lines with a text in which one of the regular expressions is found, whatever the case of letters."""

    kind: ClassVar[str] = "patterns"
    name: str
    reason: str
    of: Which
    patterns: tuple[str, ...]
    first_characters: int = 0
    """Only so many of each text are looked at; 0: all."""

    def __post_init__(self) -> None:
        if not self.patterns or self.first_characters < 0:
            raise ConfigError(f"{self.name}: there is no pattern, or first_characters is below 0. Correct it.")
        for pattern in self.patterns:
            _compiled(self.name, pattern)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return _compiled(self.name, "|".join(f"(?:{pattern})" for pattern in self.patterns))

    def finding(self, texts: Texts) -> str | None:
        """The first part that matches."""
        for text in texts.of(self.of):
            if match := self._expression.search(text, 0, self.first_characters or len(text)):
                return shown(match[0])
        return None


@dataclass(frozen=True, kw_only=True)
class BalanceRule:
    """Drops lines with a text in which something is opened more or less often than it is closed."""

    kind: ClassVar[str] = "balance"
    name: str
    reason: str
    of: Which
    pairs: tuple[tuple[str, str], ...]
    """What opens and what closes; where both are the same, an even number is right."""

    def __post_init__(self) -> None:
        if not all(opens and closes for opens, closes in self.pairs):
            raise ConfigError(f"{self.name}: what opens or closes is empty. Write both.")

    def finding(self, texts: Texts) -> str | None:
        """The first pair that does not match."""
        for text in texts.of(self.of):
            for opens, closes in self.pairs:
                count = text.count(opens)
                if opens == closes:
                    if count % 2:
                        return f"{shown(opens)} stands {count} times"
                elif count != (closed := text.count(closes)):
                    return f"{shown(opens)} stands {count} times and {shown(closes)} {closed} times"
        return None


@dataclass(frozen=True, kw_only=True)
class DuplicatesRule:
    """Drops lines with the media and texts of one before, whatever the case of letters and the white space."""

    kind: ClassVar[str] = "duplicates"
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ContradictionsRule:
    """Drops all lines with media that answer the same question differently, after the same turns."""

    kind: ClassVar[str] = "contradictions"
    name: str
    reason: str
    answers: str
    """Regular expression of the whole answers that are compared: those that leave no choice of words."""

    def __post_init__(self) -> None:
        _compiled(self.name, self.answers)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return _compiled(self.name, self.answers)

    def is_compared(self, answer: str) -> bool:
        """Whether an answer is one that can contradict another."""
        return self._expression.fullmatch(answer) is not None


LineRule = ScriptsRule | LengthRule | PatternsRule | BalanceRule
"""A rule that looks at one line alone."""
RepeatRule = DuplicatesRule | ContradictionsRule
"""A rule that compares lines."""
_LINE_RULES: dict[str, type[LineRule]] = {
    rule.kind: rule for rule in (ScriptsRule, LengthRule, PatternsRule, BalanceRule)
}
_REPEAT_RULES: dict[str, type[RepeatRule]] = {rule.kind: rule for rule in (DuplicatesRule, ContradictionsRule)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The rules in order: those of one line, then those of all lines."""

    of_line: tuple[LineRule, ...]
    of_all: tuple[RepeatRule, ...]

    @property
    def all(self) -> Sequence[LineRule | RepeatRule]:
        """All in order; the verdict of a line is the place of its rule here, from 1."""
        return (*self.of_line, *self.of_all)


def read_rules(path: Path = DEFAULT_RULES) -> Rules:
    """The rules of a YAML file; vl3's own by default.

    Raises:
        ConfigError: the file cannot be read, or a rule is wrong.
    """
    entries = read_settings(path).get("rules")
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_RULES:
        raise ConfigError(f"{path} has no list `rules` of 1 to {MAX_RULES} rules. Write one.")
    of_line: list[LineRule] = []
    of_all: list[RepeatRule] = []
    for number, entry in enumerate(entries, start=1):
        kind = str(entry.get("kind")) if isinstance(entry, dict) else "none"
        fields = {key: value for key, value in entry.items() if key != "kind"} if isinstance(entry, dict) else {}
        if kind in _REPEAT_RULES:
            of_all.append(from_dict(_REPEAT_RULES[kind], fields))
        elif kind not in _LINE_RULES:
            kinds = ", ".join([*_LINE_RULES, *_REPEAT_RULES])
            raise ConfigError(
                f"{path}: rule {number} has the kind {shown(kind)}, which is unknown. Use one of {kinds}."
            )
        elif of_all:
            raise ConfigError(f"{path}: rule {number} stands after one that looks at all lines. Put it before those.")
        else:
            of_line.append(from_dict(_LINE_RULES[kind], fields))
    names = [rule.name for rule in (*of_line, *of_all)]
    if len(set(names)) < len(names) or not all(names):
        raise ConfigError(
            f"{path}: two rules have one name, or one has none, so they cannot be counted apart. Name each."
        )
    return Rules(of_line=tuple(of_line), of_all=tuple(of_all))


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    """A regular expression of a rule. Raises ConfigError if it is none."""
    try:
        return re.compile(pattern, re.IGNORECASE | re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{name}: {shown(pattern)} is no regular expression ({error}). Correct it.") from error
