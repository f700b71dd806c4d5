"""When the next request may be sent: at a steady rate, and not before the time that the server asked for."""

import asyncio


class Pacing:
    """Gives out moments. At 60 requests a minute, three calls at 0.0 s return at 0, 1 and 2 s.

    A server that asks one request to wait for 30 s means all of them.
    """

    def __init__(self, requests_per_minute: float | None) -> None:
        """`requests_per_minute` is None for no steady rate."""
        self._gap_seconds = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next = 0.0

    def pause(self, seconds: float) -> None:
        """Let nothing pass for so long."""
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)

    async def wait(self) -> None:
        """Wait for the next moment."""
        while (now := asyncio.get_running_loop().time()) < self._next:
            await asyncio.sleep(self._next - now)
        self._next = now + self._gap_seconds
