"""Sends what the outbox lets go, to each receiver on its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from pool_monitor.alerts.delivery.standing import ReceiverPhase
from pool_monitor.events import ALERT_NOTIFY
from pool_monitor.log import logger
from pool_monitor.parts import error_of, retrieve_error

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, Outcome
    from pool_monitor.alerts.delivery.outbox import Outbox, Waiting
    from pool_monitor.alerts.delivery.senders import Senders

LEAVE_S = 2.0
"""How long leaving waits for attempts that are under way."""
WAIT_MAX_S = 60.0
"""Longest wait without a look at the outbox."""


class Hears(Protocol):
    """Is told what becomes of notifications."""

    def sending(self, notification: Notification, at: float) -> None:
        """An attempt begins."""

    def arrived(self, notification: Notification, at: float) -> None:
        """The receiver has it."""

    def failed(self, notification: Notification, at: float, *, unsure: bool) -> None:
        """An attempt has failed. *unsure*: it may have arrived all the same."""

    def parked(self, notification: Notification, reason: str, at: float) -> None:
        """Its fallbacks are to be told."""


class Courier:
    """One task for each receiver that something waits for, so that one that hangs delays no other. Made in the event
    loop.

    *changed* is called after each attempt: there is something to store, and perhaps to tell. *about*: metadata of the
    monitor for the events.
    """

    def __init__(
        self,
        outbox: Outbox,
        senders: Senders,
        hears: Hears,
        now: Callable[[], float],
        changed: Callable[[], object],
        about: dict[str, Any],
    ) -> None:
        self._outbox, self._senders, self._hears = outbox, senders, hears
        self._now, self._changed, self._about = now, changed, about
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._woken: dict[str, asyncio.Event] = {}
        self._attempts: set[str] = set()
        self._leaving = False

    def release(self) -> None:
        """Something was put into the outbox and may be tried, or something may be tried sooner."""
        for receiver in self._outbox.receivers():
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
            found = self._outbox.take(receiver, self._now())
            if found is not None:
                await self._attempt(receiver, found)
                continue
            at = self._outbox.next_at(receiver)
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

    async def _attempt(self, receiver: str, tried: Waiting) -> None:
        notification, began = tried.notification, time.perf_counter_ns()
        self._hears.sending(notification, self._now())
        self._attempts.add(receiver)
        try:
            outcome = await self._senders.send(receiver, notification)
        except BaseException:
            self._outbox.interrupted(tried)
            self._hears.failed(notification, self._now(), unsure=True)
            raise
        finally:
            self._attempts.discard(receiver)
        at = self._now()
        before = self._outbox.standing(receiver).state
        passed_on = self._outbox.note(tried, outcome, at)
        if outcome.result == "sent":
            self._hears.arrived(notification, at)
        else:
            self._hears.failed(notification, at, unsure=outcome.unsure)
        for one, reason in passed_on:
            self._hears.parked(one, reason, at)
        self._tell(receiver, before, tried, outcome, time.perf_counter_ns() - began)
        self._changed()

    def _tell(self, receiver: str, before: ReceiverPhase, tried: Waiting, outcome: Outcome, took_ns: int) -> None:
        notification = tried.notification
        measured = {
            "duration": took_ns,
            "attempt": tried.attempts + 1,
            "alerts": notification.firing + notification.resolved,
        }
        if outcome.retry_after is not None:
            measured["retry_after"] = round(outcome.retry_after * 1e9)
        ALERT_NOTIFY.event.emit(
            measured,
            {
                **self._about,
                "receiver": receiver,
                "channel": self._senders.kind(receiver),
                "id": notification.id,
                "group": notification.group_key,
                "status": notification.status,
                "reason": notification.reason,
                "result": outcome.result,
                "error": outcome.reason,
            },
        )
        after = self._outbox.standing(receiver).state
        if after in _OUT and before not in _OUT:
            logger("alerts").warning("a receiver cannot be told", receiver=receiver, state=after, reason=outcome.reason)
        elif after is ReceiverPhase.READY and before in _OUT:
            logger("alerts").info("a receiver is told again", receiver=receiver)


_OUT = (ReceiverPhase.OPEN, ReceiverPhase.PARKED, ReceiverPhase.GONE)
