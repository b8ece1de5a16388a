"""Where the dashboard gets its Snapshots: from this process. For another process, see `remote.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, Protocol, runtime_checkable

from pool_monitor.dashboard.alert_actions import AlertRequest
from pool_monitor.dashboard.tuning_actions import TuningRequest
from pool_monitor.service.stacks import StackReading
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


@runtime_checkable
class StackFeed(Protocol):
    """A feed that can also get the stack of a worker. A feed need not be one: then the dashboard says so."""

    async def stack(self, pool: str, slot: str) -> StackReading:
        """Return what the worker in *slot* of *pool* is running.

        It may take seconds and may raise: the dashboard waits for it in a task of its own, for a limited time, and
        shows an exception as the reason.
        """
        ...


@runtime_checkable
class AlertFeed(Protocol):
    """A feed that can also acknowledge and silence alerts. A feed need not be one: then the dashboard says so."""

    async def act(self, request: AlertRequest) -> str:
        """Do what is asked, and return what was done, in words.

        It may take seconds and may raise: the dashboard waits for it in a task of its own, for a limited time, and
        shows an exception as the reason.
        """
        ...


@runtime_checkable
class TuningFeed(Protocol):
    """A feed that can also act on advice and tuning. A feed need not be one: then the dashboard says so."""

    async def tune(self, request: TuningRequest) -> str:
        """Do what is asked, and return what was done, in words; to explain, the explanation, in lines.

        It may take seconds and may raise: the dashboard waits for it in a task of its own, for a limited time, and
        shows an exception as the reason.
        """
        ...


class LocalFeed:
    """The feed of a monitor in this process: calls *take* with the window immediately, and every *interval* seconds.

    *stack* is `Monitor.stack`. None: workers are not asked for their stacks.
    """

    def __init__(
        self,
        take: Callable[[str], Snapshot],
        interval: float = 1.0,
        stack: Callable[[str, str], Awaitable[StackReading]] | None = None,
    ) -> None:
        self.take, self.interval, self._stack = take, interval, stack

    async def stack(self, pool: str, slot: str) -> StackReading:
        """See `StackFeed.stack`."""
        if self._stack is None:
            return StackReading(stack=None, reason="this dashboard cannot ask workers")
        return await self._stack(pool, slot)

    async def frames(self, window: str) -> AsyncIterator[Frame]:
        """See `Feed.frames`. Ticks missed while the loop was busy are skipped."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            yield self.take(window)
            due = max(due + self.interval, loop.time())
            await asyncio.sleep(due - loop.time())
