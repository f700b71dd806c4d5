r"""JSON files of any size, one value at a time: arrays, objects and lines, and arrays within an object.

[{"id": 1}, {"id": 2}]                       the array's values
{"id": 1}\n{"id": 2}\n                       the lines' values
{"images": [{"id": 1}], "annotations": [..]} at="images": the values of that array
{"v_1": {"duration": 8.0}, "v_2": {...}}     at="": the object's members, as (key, value)
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from vl3.errors import DataError

MAX_VALUE_CHARACTERS = 64 << 20
"""A value must fit into memory; a COCO annotation has a thousandth of this."""
_CHUNK_CHARACTERS = 1 << 16
_SPACE = " \t\r\n"
_AFTER = tuple(f"{_SPACE},:]}}")
"""What can follow a value."""


def values(path: Path) -> Iterator[Any]:
    """The values of an array, or of lines; a file with one object gives that object.

    Raises:
        DataError: the file cannot be read or is not JSON.
    """
    with _open(path) as stream:
        if stream.peek() == "[":
            yield from stream.array()
        else:
            while stream.peek():
                yield stream.value()


def members(path: Path, *keys: str) -> Iterator[tuple[str, Any]]:
    """The members of an object, or of the object at `keys` within it; of an array, ("0", value) and so on.

    Raises:
        DataError: the file cannot be read, is not JSON, or lacks a key.
    """
    with _open(path) as stream:
        for key in keys:
            stream.descend(key)
        if stream.peek() == "[":
            yield from ((str(index), value) for index, value in enumerate(stream.array()))
        else:
            yield from stream.object()


class _open:  # noqa: N801 - used like the function it stands for
    """A context manager: a stream over a file, whose errors are DataErrors that name it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> "_Stream":
        try:
            self._file = self._path.open(encoding="utf-8-sig")
        except OSError as error:
            raise DataError(f"{self._path} cannot be read ({error.strerror}). Restore the file.") from error
        return _Stream(self._file, self._path)

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Stream:
    """A window of the file's text, from which values are taken off the front."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._passed, self._ended = "", 0, 0, False
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no space; empty at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        """The next value.

        The window may end within it: `12` may go on as `12.5` or `123`, so a number counts only if what follows it
        cannot belong to it, or the file has ended.
        """
        self.peek()
        while True:
            try:
                found, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                place = self._passed + error.pos
                if not self._more():
                    raise self._damaged(error.msg, place) from error
            except (RecursionError, ValueError) as error:
                raise self._damaged(str(error), self._passed + self._at) from error
            else:
                if self._text[end : end + 1] in _AFTER or not self._more():
                    self._at = end
                    return found

    def array(self) -> Iterator[Any]:
        """The values of the array that starts here."""
        self._expect("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != "]":
                self._expect(",")
        self._at += 1

    def object(self) -> Iterator[tuple[str, Any]]:
        """The members of the object that starts here."""
        for key in self._keys():
            yield key, self.value()

    def descend(self, wanted: str) -> None:
        """Go to the value of a member of the object that starts here."""
        for key in self._keys():
            if key == wanted:
                self.peek()
                return
            self._skip()
        raise DataError(f"{self._path} has no key {wanted!r}. Its layout is another than the catalogue's.")

    def _skip(self) -> None:
        """Pass over a value; of an array or object only one member is in memory."""
        first = self.peek()
        if first == "[":
            for _ in self.array():
                pass
        elif first == "{":
            for _ in self.object():
                pass
        else:
            self.value()

    def _keys(self) -> Iterator[str]:
        self._expect("{")
        while self.peek() != "}":
            key = self.value()
            if not isinstance(key, str):
                raise self._damaged("a key is not a text", self._passed + self._at)
            self._expect(":")
            yield key
            if self.peek() != "}":
                self._expect(",")
        self._at += 1

    def _expect(self, character: str) -> None:
        if self.peek() != character:
            raise self._damaged(f"expected {character!r}", self._passed + self._at)
        self._at += 1

    def _more(self) -> bool:
        """Read on, twice as much as is waiting, so that a long value is parsed a few times only; False at the end."""
        if self._ended:
            return False
        waiting = self._text[self._at :]
        if len(waiting) > MAX_VALUE_CHARACTERS:
            raise self._damaged(f"one value has more than {MAX_VALUE_CHARACTERS} characters", self._passed + self._at)
        try:
            new = self._file.read(max(_CHUNK_CHARACTERS, len(waiting)))
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged(str(error), self._passed + len(self._text)) from error
        if not new:  # the window stays as it is
            self._ended = True
            return False
        self._passed += self._at
        self._text, self._at = waiting + new, 0
        return True

    def _damaged(self, what: str, place: int) -> DataError:
        return DataError(
            f"{self._path} is not JSON at character {place + 1} ({what}). Restore the file from its source."
        )
