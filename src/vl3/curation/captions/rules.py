"""What is asked for a caption and what it must be, as data with reasons (`templates/captions.yaml` has vl3's own)."""

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from vl3.config.checks import Count, Range, check_fields
from vl3.config.valued import read_valued
from vl3.curation.captions.foreign import hostile_part

DEFAULT_RULES = Path(str(files("vl3.curation.captions"))) / "templates" / "captions.yaml"


class CaptionStyle(StrEnum):
    """The two captions of VL3-Syn7M."""

    SHORT = "short"
    """One or two sentences (InternVL2-8B in the paper)."""
    DETAILED = "detailed"
    """A paragraph or two (InternVL2-26B in the paper)."""


@dataclass(frozen=True, kw_only=True)
class CaptionRules:
    """Prompts and limits; what each is for stands in the file."""

    system: str
    short_prompt: str
    short_max_tokens: Count
    detailed_prompt: str
    detailed_max_tokens: Count
    min_characters: Count
    max_characters: Count
    annotations_prompt: str
    max_marks: Count
    max_name_characters: Count
    max_side_px: Annotated[int, Range(at_least=28, at_most=16384)]
    jpeg_quality: Annotated[int, Range(at_least=1, at_most=100)]
    hostile: tuple[str, ...]
    forbidden: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, "captions")
        for patterns in (self.hostile, self.forbidden):
            hostile_part("", patterns)  # compiles them

    def prompt(self, style: CaptionStyle) -> str:
        """What is asked."""
        return self.short_prompt if style is CaptionStyle.SHORT else self.detailed_prompt

    def max_tokens(self, style: CaptionStyle) -> int:
        """Length of the answer at most."""
        return self.short_max_tokens if style is CaptionStyle.SHORT else self.detailed_max_tokens

    def problem(self, caption: str) -> str:
        """Why a text cannot be a caption; empty if it can."""
        if not self.min_characters <= len(caption) <= self.max_characters:
            return f"a caption of {len(caption)} characters; {self.min_characters} to {self.max_characters} are taken"
        if found := hostile_part(caption, self.forbidden):
            return f"the caption has {found!r}, which is no word of a caption"
        return ""

    def settings(self) -> dict[str, Any]:
        """All of it, for a version."""
        return asdict(self)


def read_caption_rules(path: Path = DEFAULT_RULES) -> CaptionRules:
    """The rules of a file; vl3's own by default.

    Raises:
        ConfigError: the file cannot be read, or a rule is wrong.
    """
    return read_valued(CaptionRules, path)


def tidy(caption: str, style: CaptionStyle) -> str:
    """A caption as it is kept: without characters that show nothing; a short one on one line."""
    lines = [" ".join(line.split()) for line in re.split(r"[\r\n]+", caption)]
    text = "\n".join("".join(char for char in line if char.isprintable()) for line in lines if line)
    return " ".join(text.split()) if style is CaptionStyle.SHORT else text
