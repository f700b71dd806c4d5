"""Finds equal and contradicting lines among any number, with files on disk and a 256th of their keys in memory.

Each line gives keys of 8 bytes, which go into 256 files by their first byte; equal keys meet in one file. Of 60 million
lines two different ones share a key with a probability of 1 in 10,000.

    key        line          key        answer  line
    a1..       0             c4..       yes     0
    a1..       7   repeats   c4..       no      7       0 and 7 contradict each other
    a9..       8             c4..       yes     8       and 8, as nobody knows which is right
"""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl3.data.derive.rules import ContradictionsRule
from vl3.data.sample.clips import Clip, Medium
from vl3.data.sample.records import Record

KEY_BYTES = 8
_FILES = 256
_BUFFER_BYTES = 1 << 15
_CHUNK_RECORDS = 1 << 18
_SEPARATOR = b"\0"
Lines = NDArray[np.uint64]
"""Numbers of lines."""


def content_key(record: Record) -> bytes:
    """A key of a line's media and texts; equal for lines that differ in the case of letters and white space alone."""
    messages = record.events or record.turns
    return _key(_media(record.media), *(part for one in messages for part in (one.role, _plain(one.text))))


def answer_keys(record: Record, rule: ContradictionsRule) -> Iterator[tuple[bytes, bytes]]:
    """For each answer that is compared a key of its question, with media and all turns before, and one of itself."""
    if not record.media or record.is_stream:
        return
    before = blake2b(_media(record.media), digest_size=KEY_BYTES)
    for turn in record.turns:
        plain = _plain(turn.text)
        if turn.role == "assistant" and rule.is_compared(plain):
            yield before.digest(), _key(plain.rstrip(".。"))
        before.update(_SEPARATOR + turn.role.encode() + _SEPARATOR + plain.encode())


class KeyFiles:
    """Records that begin with a key, spread over files by the key's first byte."""

    def __init__(self, folder: Path, record_bytes: int) -> None:
        """Prepare files in a folder, which is made."""
        folder.mkdir()
        self._paths = [folder / f"{number:02x}" for number in range(_FILES)]
        self._waiting = [bytearray() for _ in range(_FILES)]
        self._record_bytes = record_bytes

    def add(self, key: bytes, rest: bytes) -> None:
        """Add a record."""
        waiting = self._waiting[key[0]]
        waiting += key + rest
        if len(waiting) >= _BUFFER_BYTES:
            self._write(key[0])

    def files(self) -> Iterator[Path]:
        """Write what is waiting; the files that have records."""
        for number, path in enumerate(self._paths):
            self._write(number)
            if path.exists():
                yield path

    def _write(self, number: int) -> None:
        """Files are opened anew, as a process may not have so many open."""
        if self._waiting[number]:
            with self._paths[number].open("ab") as file:
                file.write(self._waiting[number])
            self._waiting[number] = bytearray()


class Repeats:
    """Lines by their content."""

    def __init__(self, folder: Path) -> None:
        self._files = KeyFiles(folder, 16)

    def add(self, record: Record, line: int) -> None:
        """Add a line; numbers rise."""
        self._files.add(content_key(record), line.to_bytes(8, "little"))

    def found(self) -> Iterator[Lines]:
        """The lines that repeat one before."""
        for path in self._files.files():
            known = np.empty(0, "<u8")
            for chunk in _chunks(path, np.dtype([("key", "<u8"), ("line", "<u8")])):
                keys, first = np.unique(chunk["key"], return_index=True)  # index of the first, as the order is kept
                repeats = np.ones(len(chunk), bool)
                repeats[first[~np.isin(keys, known, assume_unique=True)]] = False
                yield chunk["line"][repeats]
                known = np.union1d(known, keys)


class Contradictions:
    """Lines by their questions, with their answers."""

    def __init__(self, folder: Path, rule: ContradictionsRule) -> None:
        self._files, self._rule = KeyFiles(folder, 24), rule

    def add(self, record: Record, line: int) -> None:
        """Add a line."""
        for question, answer in answer_keys(record, self._rule):
            self._files.add(question, answer + line.to_bytes(8, "little"))

    def found(self) -> Iterator[Lines]:
        """The lines of which a question has different answers; one may come several times."""
        kind = np.dtype([("key", "<u8"), ("answer", "<u8"), ("line", "<u8")])
        for path in self._files.files():
            keys, least, most = np.empty((3, 0), "<u8")
            for chunk in _chunks(path, kind):
                keys, least, most = _extremes(
                    np.concatenate([keys, chunk["key"]]),
                    np.concatenate([least, chunk["answer"]]),
                    np.concatenate([most, chunk["answer"]]),
                )
            contradicted = keys[least != most]
            if len(contradicted):
                for chunk in _chunks(path, kind):
                    yield chunk["line"][np.isin(chunk["key"], contradicted)]


def _extremes(keys: Lines, least: Lines, most: Lines) -> tuple[Lines, Lines, Lines]:
    """Each key once, with the least and the greatest of its values: keys 5 5 7, values 2 9 4 give 5 7, 2 4, 9 4."""
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    return found, np.minimum.reduceat(least[order], starts), np.maximum.reduceat(most[order], starts)


def _chunks(path: Path, kind: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    with path.open("rb") as file:
        while content := file.read(_CHUNK_RECORDS * kind.itemsize):
            yield np.frombuffer(content, kind)


def _media(media: tuple[Medium, ...]) -> bytes:
    """What is shown, as bytes; two intervals of a file are two media."""
    return "\0".join(one if isinstance(one, str) else _clip(one) for one in media).encode()


def _clip(clip: Clip) -> str:
    return f"{clip.path}\1{clip.start_seconds}\1{clip.end_seconds}\1{clip.frames_fps}\1{clip.frames}"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _key(*parts: bytes | str) -> bytes:
    raw = (part if isinstance(part, bytes) else part.encode() for part in parts)
    return blake2b(_SEPARATOR.join(raw), digest_size=KEY_BYTES).digest()
