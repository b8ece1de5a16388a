"""How far ahead sequential workers are handed calls, and how these come back from one that is held up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pool_monitor.pool import prefetch
from pool_monitor.pool.roster import Roster

HELD_UP = 0.005  # seconds after which calls handed ahead are taken back from a worker that does not get to them
LOOK_EVERY = 32  # calls that ended, or have to wait, between two looks at how far ahead to hand over
_WEIGHT = 0.05  # of the latest call in the mean


class HandAhead:
    """Keeps ``roster.depth``, and takes back what workers do not get to. *most*: calls a worker may hold at all."""

    def __init__(self, roster: Roster, most: int, loop: asyncio.AbstractEventLoop, now_ns: Callable[[], int]) -> None:
        self._roster, self._most, self._loop, self._now_ns = roster, most, loop, now_ns
        self._execution_ns = 0.0  # mean, of the latest calls
        self._relief: asyncio.TimerHandle | None = None

    def executed(self, execution_ns: int) -> None:
        """A call took so long."""
        self._execution_ns += _WEIGHT * (execution_ns - self._execution_ns)

    def look(self, completed: int, open_calls: int) -> None:
        """Decide anew how many calls a worker may hold."""
        roster = self._roster
        if roster.concurrency == 1 and self._most > 1:
            workers = max(1, roster.counts["busy"] + roster.counts["idle"])
            mean = self._execution_ns / 1e9 if completed >= LOOK_EVERY else None
            roster.depth = prefetch.depth(mean, self._most, open_calls, workers)

    def watch(self) -> None:
        """A worker holds a call that it has not begun."""
        if self._relief is None and self._roster.concurrency == 1:
            self._relief = self._loop.call_later(HELD_UP, self._relieve)

    def close(self) -> None:
        """Stop the timer."""
        if self._relief is not None:
            self._relief.cancel()
            self._relief = None

    def _relieve(self) -> None:
        """Take back what a held up worker has not begun, so that others can do it."""
        self._relief = None
        held_up = self._now_ns() - round(HELD_UP / 2 * 1e9)
        more = False
        for worker in self._roster.workers.values():
            first = worker.call
            if first is None or len(worker.calls) < 2 or worker.transport is None:
                continue
            more = True
            if first.sent_ns < held_up:
                self._execution_ns = max(self._execution_ns, HELD_UP * 1e9)  # hand over no more ahead for a while
                self._roster.depth = 1
                if first.items is not None:  # what it gives back lies behind items nobody reads
                    worker.transport.flow(paused=False)
                # The last first, since each goes to the front.
                worker.transport.recall([c.id for c in reversed(worker.calls.values()) if not worker.has_begun(c)])
        if more:
            self.watch()
