"""Text of strangers before it is shown to a model: names in annotations, texts of web pages.

It can be anything: control characters, a megabyte, or an instruction to the model that reads it. What is shown is
plain, short, and stands between marks that the text cannot contain; what reads like an instruction is left out.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from vl3.errors import ConfigError

_DROPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Categories of characters that show nothing: controls, marks of direction, halves of pairs, private ones."""
_READ_AT_MOST = 4


def plain_text(text: str, max_characters: int) -> str:
    r"""One line without characters that show nothing, cut at a limit; of a huge text only a start is read.

    >>> plain_text("a\x1b[2J  b\u202ec", 6)
    'a[2J b'
    """
    start = text[: _READ_AT_MOST * max_characters]
    kept = (" " if char.isspace() else char for char in start)
    line = "".join(char for char in kept if char == " " or unicodedata.category(char) not in _DROPPED)
    return " ".join(unicodedata.normalize("NFKC", line).split())[:max_characters].rstrip()


def hostile_part(text: str, patterns: Sequence[str]) -> str:
    """The part of a text that reads like an instruction to a model; empty if there is none."""
    found = _compiled(tuple(patterns)).search(text)
    return found[0] if found else ""


def fenced(text: str, sha256: str) -> tuple[str, str]:
    """A text between marks, and the word of the marks, which follows from the picture and the text.

    The word is new for each text, so nothing that was written before can close the marks.
    """
    word = "data-" + hashlib.sha256(f"{sha256}\n{text}".encode()).hexdigest()[:12]
    return f"<{word}>\n{text}\n</{word}>", word


@lru_cache(maxsize=16)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    try:
        return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)", re.IGNORECASE | re.DOTALL)
    except re.error as error:
        raise ConfigError(f"a pattern of the caption rules is no regular expression ({error}). Correct it.") from error
