"""A terminal to look at: runs a program on a real pseudo-terminal and keeps what its screen shows."""

import fcntl
import os
import re
import select
import struct
import termios
from collections.abc import Mapping, Sequence
from subprocess import Popen

_QUIET_SECONDS = 0.1
"""A program that writes nothing for so long has finished what it draws; a terminal passes on a drawing in pieces."""
_SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b\][^\x07]*\x07|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """The lines that a terminal shows; knows the few control sequences with which rich redraws."""

    def __init__(self, rows: int, columns: int) -> None:
        self._rows, self._columns = rows, columns
        self._lines = [""] * rows
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Take what a program writes."""
        for arguments, command, move, plain in _SEQUENCE.findall(text):
            if command:
                self._control(arguments, command)
            elif move == "\r":
                self._column = 0
            elif move == "\n":
                self._next_line()
            for character in plain:
                self._put(character)

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without trailing spaces and empty lines at the end."""
        return "\n".join(line.rstrip() for line in self._lines).rstrip().split("\n")

    def _put(self, character: str) -> None:
        if self._column == self._columns:
            self._column = 0
            self._next_line()
        line = self._lines[self._row].ljust(self._column)
        self._lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
        self._column += 1

    def _next_line(self) -> None:
        if self._row + 1 < self._rows:
            self._row += 1
        else:
            self._lines = [*self._lines[1:], ""]

    def _control(self, arguments: str, command: str) -> None:
        count = int(arguments or "1") if arguments.isdigit() or not arguments else 1
        if command == "A":
            self._row = max(0, self._row - count)
        elif command == "B":
            self._row = min(self._rows - 1, self._row + count)
        elif command == "K":
            line = self._lines[self._row]
            self._lines[self._row] = "" if arguments == "2" else line[: self._column]
        else:
            assert command in "mhl", f"the screen does not know ESC[{arguments}{command}"


def screens_of(
    command: Sequence[str], *, rows: int = 8, columns: int = 80, environment: Mapping[str, str]
) -> tuple[list[list[str]], int]:
    """Run a program on a terminal; returns what the screen showed whenever the program paused, and the exit status."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=dict(environment), start_new_session=True
    )
    os.close(follower)
    screen, seen, rest = Screen(rows, columns), [], b""
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:  # the program has ended and closed its end
            break
        if not data:
            break
        whole, rest = _whole(rest + data)
        screen.feed(whole)
        if not select.select([leader], [], [], _QUIET_SECONDS)[0]:
            seen.append(screen.lines)
    os.close(leader)
    return [*seen, screen.lines], process.wait()


def _whole(data: bytes) -> tuple[str, bytes]:
    """The text up to an incomplete character or control sequence, and the rest."""
    end = len(data)
    escape = data.rfind(b"\x1b")
    if escape >= 0 and not re.match(rb"\x1b(\[[?0-9;]*[A-Za-z]|\][^\x07]*\x07)", data[escape:]):
        end = escape
    while end:
        try:
            return data[:end].decode(), data[end:]
        except UnicodeDecodeError:
            end -= 1
    return "", data
