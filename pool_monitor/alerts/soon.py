"""Work that is asked for often, and done once for all that was asked meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pool_monitor.parts import retrieve_error


class Soon:
    """Does *work* in a task, under the lock that *lock* returns. If it is asked for while it is done, it is done once
    more: it may have passed what has changed. What it raises is dropped. For the event loop.
    """

    def __init__(self, name: str, lock: Callable[[], asyncio.Lock], work: Callable[[], Awaitable[None]]) -> None:
        self._name, self._lock, self._work = name, lock, work
        self._asked = False
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Have the work done."""
        self._asked = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._do(), name=self._name)
            self._task.add_done_callback(retrieve_error)

    async def _do(self) -> None:
        while self._asked:
            async with self._lock():
                self._asked = False
                await self._work()
