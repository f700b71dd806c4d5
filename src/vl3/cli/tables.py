"""Tables on a terminal."""

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Rows with columns of equal width; what would move the cursor is shown as a replacement character."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def printable(text: str) -> str:
    """The text with a replacement character for each one that would move the cursor or set a colour."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
