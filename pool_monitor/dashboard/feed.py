"""Where the dashboard gets its Snapshots from: this process, or (elsewhere) a service far away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

from pool_monitor.snapshot import Snapshot


class Lost(NamedTuple):
    """The source is gone for now. Numbers shown so far are old until the next Snapshot comes."""

    reason: str
    """What went wrong, in words for people."""
    retry_in: float
    """Seconds until the next try."""


Frame = Snapshot | Lost


class Feed(Protocol):
    def frames(self, window: str) -> AsyncIterator[Frame]:
        """Snapshots over *window* as they come, the first one at once.

        The iterator does not end while its source may come back: it yields `Lost` and goes on trying. What it
        raises ends the dashboard and comes out of `run`. The dashboard iterates it in one task, closes it there
        when the window changes, and then asks for a new one.
        """
        ...


class LocalFeed:
    """The feed of a monitor in this process: calls *take* with the window now, and every *interval* seconds."""

    def __init__(self, take: Callable[[str], Snapshot], interval: float = 1.0) -> None:
        self.take, self.interval = take, interval

    async def frames(self, window: str) -> AsyncIterator[Frame]:
        """See `Feed.frames`. Ticks missed while the loop was busy are skipped, not caught up with."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            yield self.take(window)
            due = max(due + self.interval, loop.time())
            await asyncio.sleep(due - loop.time())
