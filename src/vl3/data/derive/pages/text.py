"""The text of drawn pages: a line of the corpus is a paragraph, which goes on wherever the last page ended.

`Ein Haus. 你好 world` is the pieces `Ein_`, `Haus._`, `你`, `好_`, `world`, where _ is a space that a line's end
swallows: a line may end after any piece.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vl3.data.sample.checks import IMAGE_TAG, VIDEO_TAG
from vl3.data.sample.lines import MAX_LINE_BYTES

_WIDE = r"\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_PIECE = re.compile(rf"[{_WIDE}] ?|[^ {_WIDE}]+ ?")
_RIGHT_TO_LEFT = ("R", "AL")


@dataclass(frozen=True, kw_only=True, slots=True)
class Paragraph:
    """A text to draw, in pieces."""

    where: str
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        """Its text."""
        return "".join(self.pieces)


class Text:
    """The paragraphs of a corpus one after the other, of which parts can be taken."""

    def __init__(self, lines: Iterable[tuple[str, bytes]], leave_out: Callable[[str, str], None]) -> None:
        """Take the lines of a corpus with their places.

        Args:
            lines: UTF-8.
            leave_out: called with place and reason of each paragraph that cannot be drawn.
        """
        self._lines = iter(lines)
        self.leave_out = leave_out
        self._rest: Paragraph | None = None

    def take(self) -> Paragraph | None:
        """The next paragraph, or what is left of the last one; None at the end."""
        if self._rest is not None:
            taken, self._rest = self._rest, None
            return taken
        for where, raw in self._lines:
            text, reason = _plain(raw)
            if not reason:
                return Paragraph(where=where, pieces=tuple(_PIECE.findall(text)))
            self.leave_out(where, reason)
        return None

    def give_back(self, where: str, pieces: Sequence[str]) -> None:
        """Leave pieces for the next."""
        if pieces:
            self._rest = Paragraph(where=where, pieces=tuple(pieces))


def _plain(raw: bytes) -> tuple[str, str]:
    """The text of a line with single spaces, and why it cannot be drawn, if it cannot."""
    if len(raw) > MAX_LINE_BYTES:
        return "", f"it has more than {MAX_LINE_BYTES} bytes"
    try:
        text = unicodedata.normalize("NFC", " ".join(raw.decode().split()))
    except UnicodeDecodeError:
        return "", "it is not UTF-8"
    return text, _hindrance(text)


def _hindrance(text: str) -> str:
    """Why a text cannot be drawn; empty if it can."""
    if IMAGE_TAG in text or VIDEO_TAG in text:
        return "it has a media tag, which no answer may have"
    for character in set(text):
        if unicodedata.bidirectional(character) in _RIGHT_TO_LEFT:
            return "it is written from right to left, which pages are not"
        if unicodedata.category(character) in ("Mn", "Mc", "Me"):
            return "it has signs that combine with letters, which are not laid out"
        if not character.isprintable():
            return "it has control characters"
    return ""
