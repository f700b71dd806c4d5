"""When a silence means a stall: learned from the pauses of the work itself, since a busy machine is not a hung one."""

_FACTOR = 10
"""A pause this many times the longest one so far is a stall: a machine that slows down does so step by step."""


class Pace:
    """The pauses between signs of progress.

    Floor 600 s, signs at 0, 5, 95 and 100 s: the longest pause is 90 s and the limit 900 s, so that work which is
    silent from 100 s on counts as stalled at 1000 s.
    """

    def __init__(self, floor_seconds: float, now: float) -> None:
        """Begin at `now`, which counts as a sign; `floor_seconds` is the least limit."""
        self._floor_seconds = floor_seconds
        self._last = now
        self.longest_seconds = 0.0
        """The longest pause between two signs."""

    @property
    def limit_seconds(self) -> float:
        """How long a silence may be."""
        return max(self._floor_seconds, _FACTOR * self.longest_seconds)

    def sign(self, now: float) -> None:
        """The work made progress."""
        self.longest_seconds = max(self.longest_seconds, now - self._last)
        self._last = now

    def restart(self, now: float) -> None:
        """The work begins again; the pause before it says nothing about its pace."""
        self._last = now

    def silence_seconds(self, now: float) -> float:
        """Time since the last sign."""
        return now - self._last

    def is_stalled(self, now: float) -> bool:
        """Whether the silence is longer than it may be."""
        return self.silence_seconds(now) > self.limit_seconds
