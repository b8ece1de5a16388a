"""Sends what the outbox lets go, to each receiver on its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from pool_monitor.parts import error_of, retrieve_error

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.accounts import Accounts
    from pool_monitor.alerts.delivery.notification import Outcome
    from pool_monitor.alerts.delivery.outbox import Owed
    from pool_monitor.alerts.delivery.senders import Senders

LEAVE_S = 2.0
"""How long leaving waits for attempts that are under way."""
WAIT_MAX_S = 60.0
"""Longest wait without a look at the outbox."""


class Courier:
    """One task for each receiver that something waits for, so that one that hangs delays no other. Made in the event
    loop.

    *note* is called with each attempt that has ended, what came of it, and how many nanoseconds it took. It has to tell
    *accounts*.
    """

    def __init__(
        self,
        accounts: Accounts,
        senders: Senders,
        now: Callable[[], float],
        note: Callable[[Owed, Outcome, int], Awaitable[object]],
    ) -> None:
        self._accounts, self._senders, self._now, self._note = accounts, senders, now, note
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._woken: dict[str, asyncio.Event] = {}
        self._attempts: set[str] = set()
        self._leaving = False

    def release(self) -> None:
        """Something was put into the outbox and may be tried, or something may be tried sooner."""
        for receiver in self._accounts.outbox.receivers():
            self._woken.setdefault(receiver, asyncio.Event()).set()
            if receiver not in self._tasks:
                task = asyncio.get_running_loop().create_task(
                    self._serve(receiver), name=f"pool_monitor alerts to {receiver}"
                )
                task.add_done_callback(retrieve_error)
                self._tasks[receiver] = task

    def tick(self) -> None:
        """Raise what has ended a task."""
        for task in self._tasks.values():
            if task.done():  # one that ends as it should is not kept
                raise error_of(task)

    async def close(self) -> None:
        """End. Attempts that are under way get `LEAVE_S`. What has not arrived stays in the outbox."""
        self._leaving = True
        tasks = list(self._tasks.values())
        for receiver, task in self._tasks.items():
            if receiver not in self._attempts:
                task.cancel()
        if not tasks:
            return
        _done, late = await asyncio.wait(tasks, timeout=LEAVE_S)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=LEAVE_S)

    async def _serve(self, receiver: str) -> None:
        """Send to *receiver* until nothing waits for it."""
        woken = self._woken[receiver]
        while not self._leaving:
            woken.clear()
            found = self._accounts.take(receiver, self._now())
            if found is not None:
                await self._attempt(receiver, found)
                continue
            at = self._accounts.outbox.next_at(receiver)
            if at is None:
                break
            # The clock may be another one than that of the event loop, so the outbox is asked again.
            delay = min(max(at - self._now(), 0.001), WAIT_MAX_S)
            timer = asyncio.get_running_loop().call_later(delay, woken.set)
            try:
                await woken.wait()
            finally:
                timer.cancel()
        if not self._leaving:
            del self._tasks[receiver], self._woken[receiver]

    async def _attempt(self, receiver: str, tried: Owed) -> None:
        began = time.perf_counter_ns()
        self._attempts.add(receiver)
        try:
            try:
                outcome = await self._senders.send(receiver, tried.notification)
            except BaseException:
                self._accounts.interrupted(tried)
                raise
            await self._note(tried, outcome, time.perf_counter_ns() - began)
        finally:
            self._attempts.discard(receiver)
