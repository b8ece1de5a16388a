"""Long work on the event loop, in slices."""

from __future__ import annotations

import asyncio
import time

SLICE_S = 0.002
"""After this many seconds, others may work."""


class Slices:
    """Gives the event loop up where `pause` is called and it was held for `SLICE_S`."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.longest = 0.0
        """The longest time that the loop was held, in seconds."""

    async def pause(self) -> None:
        """Let others work, if it is time. Call it after each small piece of work."""
        if time.perf_counter() - self._began > SLICE_S:
            await self.yield_now()

    async def yield_now(self) -> None:
        """Let others work."""
        self.note()
        await asyncio.sleep(0)
        self.begin()

    def note(self) -> None:
        """The work is over, or waits for something: count how long the loop was held."""
        self.longest = max(self.longest, time.perf_counter() - self._began)

    def begin(self) -> None:
        """The work goes on."""
        self._began = time.perf_counter()
