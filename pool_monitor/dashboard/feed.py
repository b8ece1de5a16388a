"""Where the dashboard gets its Snapshots: from this process. For another process, see `remote.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

from pool_monitor.snapshot import Snapshot


class Lost(NamedTuple):
    """The source is unreachable. Until the next Snapshot, the numbers on the screen are outdated."""

    reason: str
    """What failed, in words for people."""
    retry_in: float
    """Seconds until the next try."""


Frame = Snapshot | Lost


class Feed(Protocol):
    def frames(self, window: str) -> AsyncIterator[Frame]:
        """Yield Snapshots over *window* as they arrive, the first one immediately.

        While its source may come back, the iterator does not end: it yields `Lost` and tries again. An exception it
        raises ends the dashboard, and `run` raises it. The dashboard iterates it in one task. When the window changes,
        the dashboard closes it in that task and calls `frames` again.
        """
        ...


class LocalFeed:
    """The feed of a monitor in this process: calls *take* with the window immediately, and every *interval* seconds."""

    def __init__(self, take: Callable[[str], Snapshot], interval: float = 1.0) -> None:
        self.take, self.interval = take, interval

    async def frames(self, window: str) -> AsyncIterator[Frame]:
        """See `Feed.frames`. Ticks missed while the loop was busy are skipped."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            yield self.take(window)
            due = max(due + self.interval, loop.time())
            await asyncio.sleep(due - loop.time())
