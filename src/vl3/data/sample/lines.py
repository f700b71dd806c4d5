"""Annotation files as JSON objects, line by line: a bad line is refused alone, whatever is in it.

A line is read as bytes, so that its encoding is its own problem, and at most `MAX_LINE_BYTES` of it are ever in memory.
"""

import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from vl3.data.sample.problems import ProblemKind, SampleProblem, shown
from vl3.errors import DataError

MAX_LINE_BYTES = 2**20
"""A longer line is refused unread. The longest rows take a tenth of it; tokenising a text takes 300 times its size."""
MAX_DEPTH = 32
"""Levels of nesting. A sample has four; the parser's own limit depends on how deep its caller is."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SKIP_BYTES = 2**20
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _RepeatedKeyError(ValueError):
    """A key stands twice in one object; the message is the key, quoted."""


LINE_ERRORS = (OSError, EOFError, zlib.error)
"""What reading a file of lines raises; the last two for a gzip file that is cut or damaged."""


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, each cut at MAX_LINE_BYTES + 1 bytes; a byte order mark before the first is dropped.

    Raises:
        DataError: the file is missing, is not a regular file, or cannot be read.
    """
    number = 0
    try:
        if path.exists() and not path.is_file():  # a pipe without a writer would be waited for
            raise DataError(f"{path} is not a regular file. Write the annotations to a file, one object a line.")
        with path.open("rb") as packed, unpacked(packed) as file:
            for number, (line, _) in enumerate(lines_of(file), start=1):
                line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
                if line:
                    yield line
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist. Check the path; data folders need annotations/train.jsonl (docs/data-formats.md)."
        ) from error
    except LINE_ERRORS as error:
        raise DataError(
            f"{path} cannot be read after line {number} ({line_error(error)}). Restore the file."
        ) from error


def line_error(error: BaseException) -> str:
    """The reason of one of LINE_ERRORS, for a message."""
    return getattr(error, "strerror", None) or str(error)


def lines_of(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line of a file, cut at MAX_LINE_BYTES + 1 bytes, and how many bytes it has in the file.

    Raises:
        OSError: the file cannot be read.
    """
    while line := file.readline(MAX_LINE_BYTES + 1):
        length, rest = len(line), line
        while not rest.endswith(b"\n") and (rest := file.readline(_SKIP_BYTES)):
            length += len(rest)
        yield line, length


def is_blank(line: bytes) -> bool:
    """Whether a line has nothing to parse; such lines are counted and passed over."""
    return not line.strip(b" \t\r\n")


def is_packed(file: BinaryIO) -> bool:
    """Whether the first bytes of a file are those of gzip or zstd; it is at its start afterwards."""
    magic = file.read(len(_ZSTD))
    file.seek(0)
    return magic.startswith(_GZIP) or magic == _ZSTD


@contextmanager
def unpacked(file: BinaryIO) -> Iterator[BinaryIO]:
    """A file to read lines from, unpacked as it is read if its first bytes are those of gzip or zstd."""
    if not is_packed(file):
        yield file
    elif file.read(len(_GZIP)) == _GZIP:
        file.seek(0)
        with gzip.GzipFile(fileobj=file) as unpacking:
            yield io.BufferedReader(unpacking)
    else:
        import pyarrow

        file.seek(0)
        with pyarrow.CompressedInputStream(cast(io.IOBase, file), "zstd") as unpacking:
            yield io.BufferedReader(cast(io.RawIOBase, unpacking))


def parse_line(line: str | bytes, where: str) -> dict[str, Any]:
    """The JSON object of one line.

    Raises:
        SampleProblem: the line is not UTF-8, not JSON, no object, too long or too deep, or has a key twice or text that
            no file can hold (a lone surrogate).
    """
    if len(line) > MAX_LINE_BYTES:
        reason = f"the line has more than {MAX_LINE_BYTES} bytes. Shorten it, or split the sample."
        raise SampleProblem(ProblemKind.STRUCTURE, reason, where)
    text = line if isinstance(line, str) else _decode(line, where)
    try:
        data = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except _RepeatedKeyError as error:
        reason = f"the key {error} stands twice in one object, so one value would be lost. Keep one of them."
        raise SampleProblem(ProblemKind.STRUCTURE, reason, where) from error
    except RecursionError as error:
        raise _too_deep(where) from error
    except json.JSONDecodeError as error:
        reason = f"the line is not JSON ({error.msg}, at character {error.pos + 1}). Correct or drop it."
        raise SampleProblem(ProblemKind.JSON, reason, where) from error
    except ValueError as error:  # a constant such as NaN, or an integer of more digits than Python reads
        raise SampleProblem(ProblemKind.JSON, f"the line is not JSON ({error}). Correct or drop it.", where) from error
    if not isinstance(data, dict):
        reason = f"the line is a {type(data).__name__}, not an object. Write one object per line."
        raise SampleProblem(ProblemKind.STRUCTURE, reason, where)
    # Two quick looks at the text spare nearly every line the walk over its values.
    if text.count("[") + text.count("{") > MAX_DEPTH or _SURROGATE.search(text):
        _check_values(data, where)
    return data


def _decode(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"the line is not UTF-8 text (byte {error.start + 1}: {error.reason}). Save the file as UTF-8."
        raise SampleProblem(ProblemKind.JSON, reason, where) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; json would keep the last of two equal keys without a word."""
    data = dict(pairs)
    if len(data) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _RepeatedKeyError(shown(counts.most_common(1)[0][0]))
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check_values(data: dict[str, Any], where: str) -> None:
    """Walk over all keys and values, without recursion.

    Raises:
        SampleProblem: the line is too deep, or a text has half of a surrogate pair, which no encoding can write.
    """
    waiting: list[tuple[Any, int]] = [(data, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            reason = f"the text {shown(value)} has half of a surrogate pair, which is no character. Remove it."
            raise SampleProblem(ProblemKind.STRUCTURE, reason, where)
        inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
        if inside and depth > MAX_DEPTH:
            raise _too_deep(where)
        waiting += [(item, depth + 1) for item in inside]


def _too_deep(where: str) -> SampleProblem:
    reason = f"the line is nested more than {MAX_DEPTH} levels deep. Correct or drop it."
    return SampleProblem(ProblemKind.JSON, reason, where)
