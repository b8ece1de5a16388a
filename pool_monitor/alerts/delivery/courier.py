"""Sends what the outbox lets go, to each receiver on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pool_monitor.alerts.channels import Sender
from pool_monitor.alerts.delivery.notifier import Notifier
from pool_monitor.alerts.delivery.outbox import Outbox
from pool_monitor.parts import retrieve_error


class Courier:
    """One task for each receiver, so that one that hangs delays no other."""

    def __init__(
        self, outbox: Outbox, sender: Callable[[str], Sender], notifier: Notifier, now: Callable[[], float]
    ) -> None:
        self._outbox, self._sender, self._notifier, self._now = outbox, sender, notifier, now
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def release(self) -> None:
        """What is in the outbox is stored: send it."""
        for receiver in self._outbox.receivers():
            if receiver not in self._tasks or self._tasks[receiver].done():
                task = asyncio.get_running_loop().create_task(
                    self._send(receiver), name=f"pool_monitor alerts to {receiver}"
                )
                task.add_done_callback(retrieve_error)
                self._tasks[receiver] = task

    async def close(self) -> None:
        """End. What has not arrived stays in the outbox."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _send(self, receiver: str) -> None:
        while (found := self._outbox.take(receiver, self._now())) is not None:
            self._notifier.sending(found, self._now())
            outcome = await self._sender(receiver).send(found)
            self._outbox.note(found, outcome, self._now())
            self._notifier.arrived(found, self._now())
